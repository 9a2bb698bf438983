"""Whole runs on planted documents: what each step drops, order, splits, interruption, damaged files."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datatrove", reason="needs the extra corpus: pip install 'unmask[corpus]'")

from unmask.corpus import duplicates, executors, intake, pipeline
from unmask.corpus.executors import in_this_process
from unmask.corpus.pipeline import Corpus, make_corpus
from unmask.corpus.reading import Layout, read_documents
from unmask.corpus.recipe import CorpusRecipe
from unmask.errors import UserError
from unmask.text.sampling import is_validation

Clean = Callable[..., tuple[list[str], Corpus]]


def written(directory: Path) -> list[dict[str, str]]:
    """The documents of a corpus, training first."""
    files = [
        file for split in ("train", "validation") for file in sorted((directory / split).glob("*.jsonl.gz"))
    ]
    return [json.loads(line) for file in files for line in gzip.open(file, "rt", encoding="utf-8")]


WORDS = [first + second for first in "abcdefghij" for second in ("bak", "del", "fim", "gon", "hup")]


def sentence(draw: random.Random, words: int = 12) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words)).capitalize() + "."


def pages(number: int, lines: int = 4, seed: int = 0) -> list[dict[str, str]]:
    draw = random.Random(seed)
    return [{"id": str(n), "text": "\n".join(sentence(draw) for _ in range(lines))} for n in range(number)]


def test_without_a_step_everything_stays_in_order(clean: Clean) -> None:
    documents = pages(20)
    assert clean(documents)[0] == [document["id"] for document in documents]


def test_exact_duplicates_keep_the_first(clean: Clean) -> None:
    documents = pages(4)
    copy = documents[1] | {"id": "copy"}
    other = documents[2] | {"id": "other", "text": documents[2]["text"] + " "}
    ids, made = clean([*documents, copy, other], steps=("exact-duplicates",))
    assert ids == ["0", "1", "2", "3", "other"]
    dropped = made.ledger.step("exact-duplicates").rules["same text"]
    assert (dropped.documents, dropped.samples[0][0]) == (1, "copy")


def test_addresses_are_compared_normalised_and_missing_ones_not_at_all(clean: Clean) -> None:
    urls = ["http://a.org/x/", "https://www.a.org/x?utm_x=1", "http://a.org/y", "", ""]
    documents = [page | {"url": url} for page, url in zip(pages(5), urls, strict=True)]
    ids, made = clean(documents, steps=("duplicate-urls",))
    assert ids == ["0", "2", "3", "4"]
    assert [document.get("url") for document in written(made.directory)] == [
        "http://a.org/x/",
        "http://a.org/y",
        None,
        None,
    ]


def test_repeated_lines_stay_once_in_the_whole_corpus(clean: Clean) -> None:
    first, second = (page["text"].split("\n") for page in pages(2))
    documents = [
        {"id": "a", "text": "\n".join([*first, "", first[0]])},
        {"id": "b", "text": "\n".join([*second, "", f"  {first[2].upper()} "])},
        {"id": "c", "text": first[3]},
    ]
    ids, made = clean(documents, steps=("duplicate-lines",))
    assert ids == ["a", "b"]
    # Blank lines part paragraphs: they are not repeated lines.
    assert [document["text"].split("\n") for document in written(made.directory)] == [
        [*first, ""],
        [*second, ""],
    ]
    assert made.ledger.step("duplicate-lines").rules["line: repeated"].lines == 3
    assert made.ledger.step("duplicate-lines").rules["no line left"].documents == 1


def test_sentences_are_counted_again_after_c4_and_line_deduplication(clean: Clean) -> None:
    first, second = (page["text"].split("\n") for page in pages(2, lines=3))
    documents = [
        {"id": "a", "text": "\n".join(first)},
        {"id": "b", "text": "\n".join([first[0], *second[:2]])},
    ]
    assert clean(documents, steps=("c4", "duplicate-lines"))[0] == ["a"]
    assert clean(documents, steps=("duplicate-lines",))[0] == ["a", "b"]


def test_near_copies_with_edited_words(clean: Clean) -> None:
    documents = pages(12, lines=12)
    words = documents[5]["text"].split(" ")
    near, far = list(words), list(words)
    near[20], near[90] = "edited", "changed"
    far[::4] = ["edited"] * len(far[::4])
    ids, made = clean(
        [*documents, {"id": "near", "text": " ".join(near)}, {"id": "far", "text": " ".join(far)}],
        steps=("near-duplicates",),
    )
    assert len({"5", "near"} & set(ids)) == 1
    assert set(ids) | {"5", "near"} == {str(n) for n in range(12)} | {"near", "far"} | {"5"}
    assert made.ledger.step("near-duplicates").rules["near copy"].documents == 1


def test_documents_of_an_evaluation(clean: Clean, tmp_path: Path) -> None:
    documents = pages(4, lines=6)
    evaluation = documents[2]["text"].replace("\n", " ").split(" ")
    (tmp_path / "test.csv").write_text(
        f"n,question\n1,{' '.join(evaluation[20:33]).upper()}\n2,{' '.join(evaluation[:3])}\n"
    )
    settings: dict[str, Any] = {"steps": ("decontaminate",), "against": (str(tmp_path / "test.csv"),)}
    ids, made = clean(documents, **settings)
    [(_, passage)] = made.ledger.step("decontaminate").rules["words of an evaluation"].samples
    assert passage == " ".join(evaluation[20:33]).lower().replace(".", "")
    assert ids == ["0", "1", "3"], "thirteen words in a row, whatever their case and line breaks"
    assert clean(documents, **settings, evaluation_words=14)[0] == ["0", "1", "3"], (
        "a shorter text, as a whole"
    )

    twelve = " ".join([*evaluation[20:32], "other", *evaluation[33:]])
    assert clean([documents[0], {"id": "2", "text": twelve}], **settings)[0] == ["0", "2"]


def test_languages(clean: Clean) -> None:
    documents = [
        {
            "id": "en",
            "text": "The committee will meet again on Thursday, and most of its members will be there.",
        },
        {
            "id": "de",
            "text": "Der Ausschuss tritt am Donnerstag wieder zusammen, und die meisten werden da sein.",
        },
        {"id": "number", "text": "12 34 56"},
    ]
    ids, made = clean(documents, steps=("language",))
    assert ids == ["en"]
    assert made.ledger.languages == {"en": 1, "de": 1, "unknown": 1}
    assert clean(documents, steps=("language",), language="de")[0] == ["de"]
    with pytest.raises(UserError, match="langdetect knows no language 'xx'; it knows af, "):
        clean(documents, steps=("language",), language="xx")


def test_repair(clean: Clean) -> None:
    _, made = clean(
        [{"id": "a", "text": "schÃ¶n &amp; â€œgutâ€\x9d"}, {"id": "b", "text": "“schön”"}], steps=("repair",)
    )
    assert [document["text"] for document in written(made.directory)] == ["schön & “gut”", "“schön”"]
    assert made.ledger.step("repair").changed == 1


PROSE = """The old house stood at the end of a long lane, and nobody in the village knew who had built it.
In the spring of that year a family from the city came to live there with their three children.
They painted the doors, mended the roof, and planted roses along the wall that faces the river.
Every evening the father walked to the bridge, where he would talk with the miller about the weather.
By autumn they were no longer strangers, and most people had forgotten that they ever had been.
Write to jo@firm.com if you want to see the place."""


def test_fineweb(clean: Clean) -> None:
    lines = PROSE.split("\n")
    documents = [
        {"id": "good", "text": PROSE},
        {"id": "short", "text": "\n".join(lines[:2])},
        {"id": "repeating", "text": "\n".join(lines[:2] * 6)},
        {"id": "bracket", "text": "\n".join([*lines, "And then a { stood there."])},
        {"id": "no marks", "text": "\n".join(line.removesuffix(".") for line in lines)},
        {"id": "near", "text": PROSE.replace("three children", "small dog")},
    ]
    recipe = CorpusRecipe.load("fineweb")
    ids, made = clean(documents, steps=recipe.steps, language_probability=recipe.language_probability)
    assert len(ids) == 1
    assert "email@example.com" in written(made.directory)[0]["text"]
    rules = {name: list(made.ledger.step(name).rules) for name in recipe.steps}
    assert rules == {
        "language": [],
        "gopher-repetition": ["dup line frac"],
        "gopher-quality": ["gopher short doc"],
        "fineweb-c4": ["curly bracket"],
        "fineweb-quality": ["line punct ratio"],
        "near-duplicates": ["near copy"],
        "personal-data": [],
    }


# --- splits and accounts ---------------------------------------------------------------------------------


def test_split_is_by_the_hash_of_the_text(clean: Clean) -> None:
    documents = pages(200)
    _, made = clean(documents, validation_share=0.2)
    in_validation = [document.text for document in read_documents(made.directory / "validation")]
    assert in_validation == [page["text"] for page in documents if is_validation(page["text"], 0.2)]
    assert made.ledger.step("validation").documents_out == len(in_validation)
    assert sum(1 for _ in read_documents(made.directory)) == 200


def test_accounts_add_up(clean: Clean) -> None:
    documents = [*pages(30), {"id": "x", "text": "short"}, pages(1)[0] | {"id": "y"}]
    _, made = clean(documents, steps=("c4", "exact-duplicates", "duplicate-lines"))
    ledger = made.ledger
    counts = [
        (ledger.step(name).documents_in, ledger.step(name).documents_out) for name in made.recipe["steps"]
    ]
    assert counts[0] == (32, 31)
    assert counts[1] == (31, 30)
    assert counts[2][0] == 30
    assert ledger.step("read").documents_out == ledger.lengths_in.total() == 32
    assert ledger.step("train").documents_out == ledger.lengths_out.total() == counts[2][1]
    for name in made.recipe["steps"]:
        step = ledger.step(name)
        assert step.documents_in - step.documents_out == sum(rule.documents for rule in step.rules.values())


# --- parts, workers, interruption ------------------------------------------------------------------------

EVERY_STAGE = CorpusRecipe(
    steps=("exact-duplicates", "c4", "duplicate-lines", "near-duplicates"),
    validation_share=0.2,
    minhash_buckets=3,
)


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three files that become several parts, with duplicates of every kind across them."""
    monkeypatch.setattr(intake, "PART_CHARACTERS", 60_000)
    monkeypatch.setattr(intake, "GROUP_BYTES", 100_000)
    monkeypatch.setattr(duplicates, "KEYS_AT_ONCE", 1000)
    documents = pages(300, lines=6)
    for n in range(0, 300, 10):
        documents.append(documents[n] | {"id": f"copy-{n}"})
        documents.append({"id": f"lines-{n}", "text": documents[n]["text"] + "\n" + documents[n + 1]["text"]})
    random.Random(1).shuffle(documents)
    for number in range(3):
        with (tmp_path / f"{number}.jsonl").open("w") as file:
            file.writelines(json.dumps(document) + "\n" for document in documents[number::3])
    return [str(tmp_path / "*.jsonl")]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_parts_do_not_change_what_is_found(
    many: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = CorpusRecipe(steps=("exact-duplicates", "duplicate-lines"), validation_share=0.0)
    in_parts = make_corpus(many, tmp_path / "parts", steps, in_this_process)
    assert len(list((tmp_path / "parts" / "train").iterdir())) >= 3
    for module, name in ((intake, "PART_CHARACTERS"), (intake, "GROUP_BYTES"), (duplicates, "KEYS_AT_ONCE")):
        monkeypatch.setattr(module, name, 1 << 30)
    whole = make_corpus(many, tmp_path / "whole", steps, in_this_process)
    assert written(in_parts.directory) == written(whole.directory)
    assert in_parts.ledger.step("duplicate-lines") == whole.ledger.step("duplicate-lines")
    assert whole.ledger.step("exact-duplicates").rules["same text"].documents == 30


class Killed(BaseException):
    """A process that ends at once, as far as files can tell."""


def test_killed_after_any_task(many: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_corpus(many, tmp_path / "whole", EVERY_STAGE, in_this_process)
    ends = executors.LocalExecutor.mark_rank_as_completed
    total = 0

    def counted(self: Any, rank: int) -> None:
        nonlocal total
        total += 1
        ends(self, rank)

    monkeypatch.setattr(executors.LocalExecutor, "mark_rank_as_completed", counted)
    make_corpus(many, tmp_path / "counted", EVERY_STAGE, in_this_process)
    kills = 0

    def killed(self: Any, rank: int) -> None:
        # Every second time before the task is marked as done, though its files are there.
        nonlocal kills
        kills += 1
        if kills % 2:
            raise Killed
        ends(self, rank)
        if kills % 4 == 0:
            raise Killed

    monkeypatch.setattr(executors.LocalExecutor, "mark_rank_as_completed", killed)
    out = tmp_path / "out"
    while True:
        try:
            made = make_corpus(many, out, EVERY_STAGE, in_this_process)
            break
        except Killed:
            assert not (out / "corpus.json").exists()
    assert kills == 2 * total
    assert made.ledger == whole.ledger
    assert contents(out) == contents(tmp_path / "whole")
    assert not list(out.glob(".*")), "nothing of the work stays"


def test_killed_while_publishing(many: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_corpus(many, tmp_path / "whole", EVERY_STAGE, in_this_process)
    out = tmp_path / "out"
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        rename(self, target)
        raise Killed

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(Killed):
        make_corpus(many, out, EVERY_STAGE, in_this_process)
    assert (out / "train").is_dir()
    monkeypatch.setattr(Path, "rename", rename)
    make_corpus(many, out, EVERY_STAGE, in_this_process)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_a_killed_writer_began_is_not_published(
    many: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_corpus(many, tmp_path / "whole", EVERY_STAGE, in_this_process)

    def killed(*_: object) -> None:
        raise Killed

    out = tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(pipeline, "_publish", killed)
        make_corpus(many, out, EVERY_STAGE, in_this_process)
    (out / ".work" / "output" / "train" / ".part-00000.jsonl.gz.abc.part").write_bytes(b"half")
    make_corpus(many, out, EVERY_STAGE, in_this_process)
    assert contents(out) == contents(tmp_path / "whole")


def test_finished_corpus_is_not_made_again(
    many: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_corpus(many, tmp_path / "out", EVERY_STAGE, in_this_process)
    monkeypatch.setattr(executors.LocalExecutor, "run", lambda self: pytest.fail("a stage was run again"))
    assert make_corpus(many, tmp_path / "out", EVERY_STAGE, in_this_process) == first


# --- what the user may have wrong ------------------------------------------------------------------------


def test_other_settings_or_inputs_are_refused(many: list[str], tmp_path: Path) -> None:
    out, one = tmp_path / "out", in_this_process
    make_corpus(many, out, CorpusRecipe(), one)
    with pytest.raises(UserError, match="made with others of these: recipe, steps"):
        make_corpus(many, out, EVERY_STAGE, one)
    with (tmp_path / "0.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(UserError, match="made with others of these: inputs"):
        make_corpus(many, out, CorpusRecipe(), one)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(UserError, match="is no corpus of ours"):
        make_corpus(many, tmp_path / "other", CorpusRecipe(), one)


def test_corrupt_file_stops_the_run_or_is_left_out_whole(many: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "1.jsonl"
    lines = bad.read_text().splitlines(keepends=True)
    # Enough good documents before the damage that parts of the file are written already.
    bad.write_text("".join([*lines, *lines, "damage\n"]))
    one = in_this_process
    with pytest.raises(UserError, match=r"1\.jsonl:\d+ is not JSON"):
        make_corpus(many, tmp_path / "out", CorpusRecipe(), one)
    made = make_corpus(many, tmp_path / "out", CorpusRecipe(), one, skip_corrupt=True)
    [(file, reason)] = made.ledger.skipped
    assert file == str(bad)
    assert "is not JSON" in reason
    bad.unlink()
    make_corpus(many, tmp_path / "without", CorpusRecipe(), one)
    assert contents(tmp_path / "out" / "train") == contents(tmp_path / "without" / "train")
    assert made.ledger.step("read").documents_out == sum(1 for _ in read_documents(many))


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"no document has any text in .*a\.txt"):
        make_corpus([str(tmp_path)], tmp_path / "out", CorpusRecipe(), in_this_process)


def test_documents_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    one = in_this_process
    recipe = CorpusRecipe(validation_share=0.0)
    made = make_corpus([str(tmp_path / "a.txt")], tmp_path / "out", recipe, one, layout=Layout(by_line=True))
    assert [document["text"] for document in written(made.directory)] == ["one", "two"]


# --- recipes ---------------------------------------------------------------------------------------------


def test_steps_that_are_switched_on_find_their_place() -> None:
    recipe = CorpusRecipe.load(
        "c4", add=["near-duplicates", "repair", "exact-duplicates"], without=["bad-words"]
    )
    assert recipe.steps == (
        "repair",
        "page-length",
        "duplicate-urls",
        "exact-duplicates",
        "c4",
        "duplicate-lines",
        "language",
        "near-duplicates",
    )


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ({"name_or_path": "c4"}, "the step bad-words needs a list: --bad-words FILE, or --without bad-words"),
        ({"name_or_path": "c5"}, "no recipe 'c5'"),
        (
            {"name_or_path": "c4", "without": ["bad-word"]},
            "the recipe has no such step; did you mean 'bad-words'",
        ),
        ({"name_or_path": "none", "add": ["decontaminate"]}, "needs evaluation files: --against"),
        ({"name_or_path": "fineweb", "overrides": {"language": "de"}}, "gopher-quality is made for English"),
        ({"name_or_path": "none", "overrides": {"validation_share": 1.0}}, "validation_share is 1.0"),
    ],
)
def test_wrong_recipes(load: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CorpusRecipe.load(**load)


def test_steps_of_a_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('steps = ["c4", "langauge"]')
    with pytest.raises(UserError, match=r"mine\.toml: no step 'langauge'; did you mean 'language'"):
        CorpusRecipe.load(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.toml").write_text('steps = ["duplicate-lines", "c4"]')
    assert CorpusRecipe.load(str(tmp_path / "mine.toml")).steps == ("duplicate-lines", "c4")
