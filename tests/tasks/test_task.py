from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from unmask.errors import UserError
from unmask.tasks.task import Task, load_task

WHOLE = """
name = "e2e"
kind = "text-to-text"
source = "meaning"
target = "text"
train = "data/train.csv"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "task.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_task_file_needs_little(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, WHOLE))
    assert task == Task("e2e", "text-to-text", ("meaning",), "text", tmp_path / "data" / "train.csv")
    assert task.metrics == ("bleu", "chrf", "exact_match")
    with pytest.raises(UserError, match="task 'e2e' has no test file"):
        task.file("test")


def test_a_task_file_can_say_everything(tmp_path: Path) -> None:
    text = """
    name = "rte"
    kind = "classification"
    source = ["premise", "hypothesis"]
    target = "label"
    metrics = ["macro_f1", "matthews"]
    labels = { 0 = "entailment", 1 = "not_entailment" }
    label_words = { not_entailment = "no entailment" }
    choices = []
    positive = "entailment"
    group = "idx"
    slices = ["genre", "idx"]
    format = "directory"
    prefix = "rte "
    template = "{premise} / {hypothesis}"
    segments = ["{premise}", "{hypothesis}"]
    head = "linear"
    symmetric = true
    scoring = "discriminator"
    columns = { label = "gold" }
    drop_empty = true
    unanswerable = true
    no_answer = "none"
    range = [0, 5.5]
    step = 1
    stride = 64
    max_question = 32
    max_answer = 16
    max_source_length = 256
    max_target_length = 4
    train = "/elsewhere/train.jsonl"
    validation = "dev.csv.gz"
    test = "../test.parquet"
    """
    task = load_task(str(written(tmp_path, text)))
    assert {field.name for field in dataclasses.fields(Task)} == {
        line.split()[0] for line in text.split("\n")[1:-1]
    }
    assert task.source == ("premise", "hypothesis") and task.metrics == ("macro_f1", "matthews")
    assert (
        task.label_names == ("entailment", "not_entailment")
        and task.word("not_entailment") == "no entailment"
    )
    assert (task.range, task.step) == ((0.0, 5.5), 1.0)
    assert (task.max_source_length, task.max_target_length) == (256, 4)
    assert task.file("train") == Path("/elsewhere/train.jsonl")
    assert task.file("validation") == tmp_path / "dev.csv.gz"
    assert task.file("test") == tmp_path / ".." / "test.parquet"
    assert task.slices == ("genre", "idx")
    assert task.text(("It rains.", "It is wet.")) == "rte It rains. / It is wet."


def test_one_column_is_read_without_its_name() -> None:
    task = Task("t", "text-to-text", ("document",), "summary", Path("t.csv"), prefix="summarize: ")
    assert task.text(("Long text.",)) == "summarize: Long text."


def test_several_columns_are_read_with_their_names_or_as_the_template_says() -> None:
    dotted = Task("t", "text-to-text", ("tr.en",), "tr.de", template="{tr.en}!")
    assert dotted.text(("Long text.",)) == "Long text.!"
    task = Task("t", "pair-classification", ("a", "b"), "label", prefix="mnli ")
    assert task.text(("It {rains}.", "Wet.")) == "mnli a: It {rains}. b: Wet."
    with_template = dataclasses.replace(task, template="{b} {{if}} {a}")
    assert with_template.text(("It {rains}.", "Wet.")) == "mnli Wet. {if} It {rains}."
    assert task.segment_texts(("x", "y")) == ("x", "y")
    three = Task("t", "classification", ("a", "b", "c"), "label")
    with pytest.raises(UserError, match="3 source columns and ELECTRA reads one or two"):
        three.segment_texts(("x", "y", "z"))
    assert dataclasses.replace(three, segments=("{a} {b}", "{c}")).segment_texts("xyz") == ("x y", "z")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('source = "meaning"', 'sorce = "meaning"', "unknown key 'sorce'; did you mean 'source'?"),
        ('target = "text"', 'target = "text"\nqqq = 1', "unknown key 'qqq'; known: name, kind, source"),
        ('target = "text"', "", "the key 'target' is missing"),
        ('name = "e2e"', "name = 3", "'name' must be a text in quotes, and is 3"),
        (
            'source = "meaning"',
            'source = ["a", 1]',
            "'source' must be a text in quotes or a list of them, and is ['a', 1]",
        ),
        ('source = "meaning"', "source = []", "'source' names no column"),
        ('train = "data/train.csv"', "train = 1", "'train' must be a path in quotes, and is 1"),
        ('name = "e2e"', 'name = "e2e"\nmax_source_length = "128"', "must be a whole number, and is '128'"),
        ('name = "e2e"', 'name = "e2e"\nmax_source_length = true', "must be a whole number, and is True"),
        (
            'name = "e2e"',
            'name = "e2e"\nmax_target_length = 0',
            "'max_target_length' is 0; it must be 1 or more",
        ),
        ("text-to-text", "text2text", "no kind 'text2text'; did you mean 'text-to-text'?"),
        (
            'name = "e2e"',
            'name = "e2e"\nmetrics = "blue"',
            "no metric 'blue' for text-to-text; did you mean 'bleu'?",
        ),
        ('name = "e2e"', 'name = "e2e"\nmetrics = ["accuracy"]', "no metric 'accuracy' for text-to-text"),
        ('name = "e2e"', 'name = "e2e', "cannot be read as TOML"),
        (
            'name = "e2e"',
            'name = "e2e"\ntemplate = "{meaning} {txt}"',
            "'template' has {txt}, which is no source",
        ),
        ('name = "e2e"', 'name = "e2e"\ntemplate = "{meaning"', "write braces twice to mean them"),
        ('name = "e2e"', 'name = "e2e"\ntemplate = "{}"', "'template' has {}, which is no source"),
        ('name = "e2e"', 'name = "e2e"\nsegments = ["a", "b", "c"]', "3 segments: ELECTRA reads one or two"),
        ('name = "e2e"', 'name = "e2e"\nhead = "deep"', "no head 'deep'; did you mean 'dense'?"),
        ('name = "e2e"', 'name = "e2e"\nstep = 0', "'step' is 0.0; it must be a number above 0"),
        ('name = "e2e"', 'name = "e2e"\nstep = inf', "'step' is inf; it must be a number above 0"),
        ('name = "e2e"', 'name = "e2e"\nrange = [0, inf]', "give two numbers, the lower end first"),
        ('target = "text"', 'target = "meaning"', "the column 'meaning' is named twice"),
        ('source = "meaning"', 'source = ["a", "a"]', "the column 'a' is named twice"),
        ('name = "e2e"', 'name = "e2e"\ntemplate = "{meaning:d}"', "has 'd' behind the name of {meaning}"),
        ('name = "e2e"', 'name = "e2e"\ntemplate = "{meaning!z}"', "has 'z' behind the name of {meaning}"),
        ('name = "e2e"', 'name = "e2e"\nsegments = "{meaning!r}"', "has 'r' behind the name of {meaning}"),
        ('name = "e2e"', 'name = "e2e"\nstep = "1"', "'step' must be a number"),
        ('name = "e2e"', 'name = "e2e"\nrange = [5, 0]', "the lower end first"),
        ('name = "e2e"', 'name = "e2e"\nrange = 5', "'range' must be two numbers"),
        ('name = "e2e"', 'name = "e2e"\nsymmetric = 1', "'symmetric' must be true or false"),
        ('name = "e2e"', 'name = "e2e"\nlabels = "a"', "'labels' must be a table"),
        (
            'name = "e2e"',
            'name = "e2e"\nlabel_words = { a = "x", b = "x" }',
            "two labels have the same words",
        ),
        ("text-to-text", "pair-classification", "has two source columns, and 'source' names 1"),
        ("text-to-text", "question-answering", "has two source columns, question and context"),
        ("text-to-text", "multiple-choice", "name the columns of the choices"),
    ],
)
def test_a_mistake_is_named_with_the_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, WHOLE.replace(old, new))
    with pytest.raises(UserError) as error:
        load_task(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no task file .*absent\.toml"):
        load_task(tmp_path / "absent.toml")
    with pytest.raises(UserError, match="cannot be read as TOML"):
        load_task(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(WHOLE.replace("e2e", "caf\xe9").encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read as TOML"):
        load_task(path)
