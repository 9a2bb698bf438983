"""`unmask generate`: files, streams, options, stopping and going on; and what people get wrong."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from unmask.cli import _run
from unmask.tasks.writing import load_writer

Refused = Callable[..., str]
Ran = Callable[..., list[str]]

WORDS = [first + second for first in "abcdefghij" for second in ("bak", "del", "fim", "gon")]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """70 lines of 0 to 9 words."""
    draw = random.Random(1)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randrange(10))) for _ in range(70)]


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Ran:
    """ran(arguments…): run `unmask generate`, which must work, and give the lines that it printed."""

    def run(*arguments: object) -> list[str]:
        capsys.readouterr()
        code = _run(["generate", *map(str, arguments), "--threads", "1"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out.splitlines()

    return run


@pytest.fixture
def t5(models: dict[str, Path]) -> Path:
    return models["t5"]


def answers(model: Path, texts: list[str], **options: Any) -> list[str]:
    """What the library writes for each text alone, on a line."""
    writer = load_writer(str(model), **options)
    return [" ".join(writer.write([text])[0][0].text.splitlines()) for text in texts]


# --- inputs and outputs ----------------------------------------------------------------------------------


def test_a_file_of_lines_is_answered_line_by_line(
    t5: Path, lines: list[str], ran: Ran, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.txt"
    flags = ["--max-new-tokens", 5, "--window", 16, "--batch-tokens", 90]
    assert ran(t5, tmp_path / "in.txt", "--out", out, *flags) == []
    expected = answers(t5, lines, max_new_tokens=5)
    assert out.read_text().splitlines() == expected
    assert len(set(expected)) > 10, "the answers are too much alike to see a wrong order"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt"]
    assert ran(t5, tmp_path / "in.txt", *flags) == expected


def test_every_kind_of_input_gives_the_same(
    t5: Path, lines: list[str], ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [line for line in lines if line][:6]
    flags = ["--max-new-tokens", 4]
    expected = ran(t5, *(part for text in texts for part in ("--text", text)), *flags)
    as_text = "\n".join(texts) + "\n"
    as_json = "".join(json.dumps({"n": 1, "source": text}) + "\n" for text in texts)
    as_csv = "n,source\n" + "".join(f'1,"{text}"\n' for text in texts)
    contents = {"a.txt": as_text, "a.jsonl": as_json, "a.csv": as_csv, "a.tsv": as_csv.replace(",", "\t")}
    for name, content in contents.items():
        column = [] if name == "a.txt" else ["--column", "source"]
        (tmp_path / name).write_text(content)
        with gzip.open(tmp_path / f"{name}.gz", "wt") as file:
            file.write(content)
        assert ran(t5, tmp_path / name, *column, *flags) == expected
        assert ran(t5, tmp_path / f"{name}.gz", *column, *flags) == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(as_text.encode())))
    assert ran(t5, "-", *flags) == expected


def test_a_directory_is_answered_file_by_file(
    t5: Path, lines: list[str], ran: Ran, refused: Refused, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("\n".join(lines[:20]) + "\n")
    (folder / "deep" / "b.txt").write_text("\n".join(lines[20:40]) + "\n")
    (folder / ".hidden.txt").write_text("x")
    command = [t5, folder, "--out", out, "--max-new-tokens", 3]
    ran(*command)
    found = {str(path.relative_to(out)): path.read_text().splitlines() for path in out.rglob("*.txt")}
    expected = answers(t5, lines[:40], max_new_tokens=3)
    assert found == {"a.txt": expected[:20], "deep/b.txt": expected[20:]}
    # Again: what is whole is left alone; what is not is made; other options are refused.
    (out / "a.txt").write_text("kept\n")
    (out / "deep" / "b.txt").unlink()
    ran(*command)
    assert (out / "a.txt").read_text() == "kept\n"
    assert (out / "deep" / "b.txt").read_text().splitlines() == expected[20:]
    assert "num_beams" in refused("generate", *command, "--num-beams", 2)
    (out / "job.json").unlink()
    assert f"{out / 'a.txt'} is there already" in refused("generate", *command)


def test_results_inside_of_the_inputs_are_no_inputs(
    t5: Path, ran: Ran, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("abak\nbdel\n")
    monkeypatch.chdir(folder)
    command = [t5, ".", "--out", "answers", "--max-new-tokens", 3]
    ran(*command)
    before = (folder / "answers" / "a.txt").read_text()
    (folder / "answers" / "a.txt").unlink()
    (folder / "answers" / "other.txt").write_text("cfim\n")
    ran(*command)
    assert (folder / "answers" / "a.txt").read_text() == before
    assert sorted(path.name for path in (folder / "answers").iterdir()) == ["a.txt", "job.json", "other.txt"]
    assert "is an input: give another --out" in refused("generate", t5, folder, "--out", folder)


def test_results_never_take_the_place_of_an_input(t5: Path, refused: Refused, tmp_path: Path) -> None:
    source = tmp_path / "in" / "a.txt"
    source.parent.mkdir()
    source.write_text("abak\nbdel\n")
    (tmp_path / "link.txt").symlink_to(source)
    for given in (source, source.parent, tmp_path / "link.txt"):
        for out in (source, tmp_path / "link.txt"):
            assert "is an input: give another --out" in refused("generate", t5, given, "--out", out)
    assert source.read_text() == "abak\nbdel\n"


def test_n_best_with_scores(t5: Path, ran: Ran) -> None:
    flags = ["--num-beams", 4, "--num-return-sequences", 3, "--max-new-tokens", 5, "--scores"]
    expected = load_writer(str(t5), num_beams=4, num_return_sequences=3, max_new_tokens=5).write(["abak"])[0]
    found = [line.split("\t") for line in ran(t5, "--text", "abak", *flags)]
    assert [text for _, text in found] == [" ".join(one.text.splitlines()) for one in expected]
    scores = [float(score) for score, _ in found]
    assert scores == sorted(scores, reverse=True)
    (line,) = ran(t5, "--text", "abak", *flags, "--format", "jsonl")
    whole = json.loads(line)
    assert whole["source"] == "abak"
    for result, score in zip(whole["results"], scores, strict=True):
        assert result["score"] == pytest.approx(score, abs=1e-4)
        assert len(result["tokens"]) == len(result["token_scores"])
        # The length penalty is 1: the score is the mean over tokens.
        assert sum(result["token_scores"]) / len(result["tokens"]) == pytest.approx(score, abs=1e-4)
        assert result.get("complete", True) == (result["tokens"][-1] == "</s>")


def test_draws_depend_on_the_seed_and_the_number_of_the_text(
    t5: Path, lines: list[str], ran: Ran, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(lines[:12]) + "\n")
    flags = ["--do-sample", "--max-new-tokens", 6, "--seed"]
    found = ran(t5, tmp_path / "in.txt", *flags, 40)
    assert found == ran(t5, tmp_path / "in.txt", *flags, 40, "--window", 5)
    assert found != ran(t5, tmp_path / "in.txt", *flags, 41)
    assert [found[7]] == ran(t5, "--text", lines[7], *flags, 47)


def test_streamed_text_is_what_is_printed_without(t5: Path, ran: Ran) -> None:
    for flags in (["--max-new-tokens", 9], ["--do-sample", "--seed", 3, "--decoder-prefix", "cdel"]):
        # A stream breaks its lines where the text does.
        streamed = " ".join(ran(t5, "--text", "abak bdel", *flags, "--stream"))
        assert ran(t5, "--text", "abak bdel", *flags) == [streamed]


def test_prefixes_and_constraints(t5: Path, ran: Ran, tmp_path: Path) -> None:
    assert ran(t5, "--text", "abak", "--prefix", "bdel cfim ") == ran(t5, "--text", "bdel cfim abak")
    (line,) = ran(t5, "--text", "abak", "--decoder-prefix", "cdel", "--max-new-tokens", 3)
    assert line.lstrip().startswith("cdel")
    (tmp_path / "labels.txt").write_text("abak\ncdel efim\n\nabak\n")
    flags = ["--choices", tmp_path / "labels.txt", "--num-beams", 3, "--num-return-sequences", 2]
    assert sorted(ran(t5, "--text", "bdel", *flags)) == ["abak", "cdel efim"]


def test_patterns_and_schemas(t5: Path, ran: Ran, tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    (line,) = ran(t5, "--text", "bdel", "--regex", "(abak|cdel){2}", "--max-new-tokens", 12)
    assert line in {"abakabak", "abakcdel", "cdelabak", "cdelcdel"}
    schema = {"type": "object", "properties": {"n": {"enum": [1, 22]}}, "required": ["n"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema | {"additionalProperties": False}))
    (line,) = ran(t5, "--text", "b", "--json-schema", tmp_path / "schema.json", "--max-new-tokens", 30)
    assert json.loads(line)["n"] in (1, 22)


def test_copying_writes_what_greedy_decoding_does(
    t5: Path, lines: list[str], ran: Ran, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    greedy = ran(t5, tmp_path / "in.txt", "--max-new-tokens", 12)
    for flag in ("--copy", "--speculate"):
        assert ran(t5, tmp_path / "in.txt", "--max-new-tokens", 12, flag) == greedy


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_low_precision(t5: Path, dtype: str, ran: Ran) -> None:
    assert len(ran(t5, "--text", "abak", "--text", "bdel", "--dtype", dtype, "--max-new-tokens", 3)) == 2


def test_electra_continues(models: dict[str, Path], ran: Ran) -> None:
    electra = models["electra"]
    flags = ["--max-new-tokens", 3, "--rounds", 2, "--revisions", 1]
    texts = ["abak bdel", "cfim", "abak bdel"]
    found = ran(electra, *(part for text in texts for part in ("--text", text)), *flags)
    assert found[0] == found[2]
    assert all(line.startswith(text) for line, text in zip(found, texts, strict=True))
    assert [found[1]] == ran(electra, "--text", "cfim", *flags)
    drawn = ["--temperature", 1.0, "--seed", 5]
    found = ran(electra, *(part for text in texts for part in ("--text", text)), *flags, *drawn)
    assert [found[1]] == ran(electra, "--text", "cfim", *flags, "--temperature", 1.0, "--seed", 6)


# --- stopping and going on -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_job_goes_on_where_it_was(
    number: int, t5: Path, lines: list[str], ran: Ran, unmask: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(lines * 40) + "\n")
    flags = ["--window", 25, "--max-new-tokens", 9, "--do-sample", "--format", "jsonl", "--scores"]
    flags += ["--dtype", "int8"]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    process = unmask("generate", t5, tmp_path / "in.txt", "--out", out, *flags, "--threads", 1)
    results = partial / "results"
    while process.is_running and (not results.exists() or results.stat().st_size < 20_000):
        time.sleep(0.001)
    process.kill(number)
    code, _, error = process.wait()
    if number == signal.SIGINT:
        assert code == 130, error
        assert " of 2800, saved: the same command continues from here" in error
    assert partial.is_dir() and not out.exists(), "stopped too late: the test shows nothing"
    # What a kill in the middle of a write leaves behind.
    with results.open("ab") as file:
        file.write(b'{"source": "half a li')
    before = results.read_bytes()
    ran(t5, tmp_path / "in.txt", "--out", out, *flags)
    assert not partial.exists()
    ran(t5, tmp_path / "in.txt", "--out", whole, *flags)
    assert out.read_bytes() == whole.read_bytes()
    kept = before[: before.rindex(b"\n") + 1]
    assert out.read_bytes().startswith(kept), "what was there was not taken over"


def test_a_job_goes_on_with_the_same_settings_alone(
    t5: Path, lines: list[str], ran: Ran, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("\n".join(lines) + "\n")
    model = Path(shutil.copytree(t5, tmp_path / "model"))
    command = ["generate", model, source, "--out", out, "--window", 20, "--max-new-tokens", 4]
    partial = tmp_path / "out.txt.partial"

    def stop(self: Any, texts: Any, first: int) -> Any:
        if first >= 40:
            raise KeyboardInterrupt
        return write(self, texts, first)

    from unmask.t5.writing import T5Writer

    write = T5Writer.write
    with monkeypatch.context() as patch:
        patch.setattr(T5Writer, "write", stop)
        assert _run([*map(str, command)]) == 130
    assert (partial / "results").read_text().count("\n") == 40

    def says(*changes: object) -> str:
        line = refused(*command, *changes)
        assert f"or delete {partial} to start over" in line
        return line

    assert "num_beams None, now 4" in says("--num-beams", 4)
    assert "dtype 'default', now 'bfloat16'" in says("--dtype", "bfloat16")
    assert "prefix '', now 'x '" in says("--prefix", "x ")
    source.write_text("\n".join(lines[:-1]) + "\n")
    assert "another input" in says()
    source.write_text("\n".join(lines) + "\n")
    weights = load_file(model / "model.safetensors")
    whole = (model / "model.safetensors").read_bytes()
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, model / "model.safetensors")
    assert "another model" in says()
    (model / "model.safetensors").write_bytes(whole)
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            T5Writer, "write", lambda self, texts, first: calls.append(first) or write(self, texts, first)
        )
        ran(*command[1:])
    assert calls == [40, 60], "what was done is done again"
    assert out.read_text().splitlines() == answers(model, lines, max_new_tokens=4)


# --- what people get wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-beams", 4, "--stream"], "num_beams=4 cannot stream"),
        (["--do-sample", "--num-return-sequences", 2, "--stream"], "num_return_sequences=2 cannot stream"),
        (["--stream", "--scores"], "--stream prints the bare text: leave --scores out"),
        (["--num-beam", 4], "Unknown option: --num-beam. Did you mean --num-beams?"),
        (["--num-beams", "four"], "four"),
        (["--dtype", "int4"], "int4"),
        (["--num-beams", 4, "--copy"], "leave it or num_beams=4 out"),
        (["--temperature", 0.5], "temperature=0.5 does nothing without do_sample=True"),
        (
            ["--decoder-prefix", "abak bdel cfim", "--max-length", 3],
            "nothing to write: 5 tokens of it are already there, give at least 6",
        ),
        (["--max-new-tokens", 0], "max_new_tokens=0 leaves nothing to write: give at least 1"),
        (["--max-new-tokens", 2, "--min-new-tokens", 3], "min_new_tokens=3 is more than the 2"),
        (
            ["--rounds", 2],
            "rounds is an option of an ELECTRA that fills masks, this model is none: leave it out",
        ),
        (["--regex", "a", "--choices", "x.txt"], "choices and regex exclude each other"),
        (["--choices", "no.txt"], "no.txt cannot be read"),
        (["--json-schema", "no.json"], "has no no.json"),
        (["--batch-tokens", 0], "batch_tokens=0"),
        (["--window", 0], "window=0"),
        (["--max-source-length", 0], "max_source_length=0"),
    ],
    ids=str,
)
def test_options_that_cannot_be(flags: list[object], message: str, t5: Path, refused: Refused) -> None:
    assert message in refused("generate", t5, "--text", "abak", *flags)


def test_constraints_that_cannot_be_met(t5: Path, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("abak bdel cfim dgon\n")
    command = ["generate", t5, "--text", "abak", "--max-new-tokens", 2]
    line = refused(*command, "--choices", tmp_path / "labels.txt")
    assert "only 2 may be written: raise max_new_tokens" in line
    (tmp_path / "labels.txt").write_text("\n")
    assert "at least one choice" in refused(*command, "--choices", tmp_path / "labels.txt")
    (tmp_path / "labels").write_text("abak\n")
    for place in (tmp_path / "labels", tmp_path):
        assert f"{place} is of an unknown kind" in refused(*command, "--choices", place)
    pytest.importorskip("llguidance")
    assert "no result could meet the constraint" in refused(*command, "--regex", "[a-z]{90}")
    line = refused(*command, "--regex", "(")
    assert line.endswith("regular expression '(' cannot be used: unclosed group"), line
    (tmp_path / "schema.json").write_text("[]")
    assert "schema.json holds list" in refused(*command, "--json-schema", tmp_path / "schema.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.csv", b"text\n", "a.csv is empty"),
        ("a.txt", b"good\nbad \xff\n", "a.txt, line 2: byte 0xff is not UTF-8"),
        ("a.txt.gz", b"no gzip", "a.txt.gz cannot be read"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"words": "b"}\n',
            "a.jsonl, line 2 has no column 'text': there are 'words'",
        ),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1: one JSON object a line is read, not list"),
        ("a.jsonl", b'{"text": \n', "a.jsonl, line 1: not JSON"),
        ("a.jsonl", b'{"text": null}\n', "a.jsonl, line 1: the column 'text' has no value"),
        ("a.jsonl", b'{"text": ["a"]}\n', "holds list, not a text or a number"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "has a lone surrogate at 0"),
        (
            "a.csv",
            b"words,n\na,1\n",
            "a.csv has no column 'text': there are 'words', 'n'; name one with --column",
        ),
        ("a.csv", b"text,text\na,1\n", "a.csv has 2 columns named 'text'"),
        ("a.csv", b"text,n\na,1\nb\n", "a.csv, line 3: 1 fields, the header has 2 columns"),
        ("a.csv", b'text\n"a\n', "a.csv, line 2: unexpected end of data"),
        ("a.parquet", b"no parquet", "a.parquet cannot be read as Parquet"),
        ("a.pdf", b"x", "a.pdf is of an unknown kind"),
    ],
)
def test_inputs_that_cannot_be_read(
    name: str, content: bytes, message: str, t5: Path, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out.txt"
    assert message in refused("generate", t5, tmp_path / name, "--out", out)
    assert not list(tmp_path.glob("out*")), "something is written for nothing"


def test_inputs_and_outputs_that_do_not_fit(t5: Path, refused: Refused, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("abak\n")
    assert "one of the two" in refused("generate", t5)
    assert "one of the two" in refused("generate", t5, source, "--text", "a")
    assert "abak does not exist: inputs are files or directories; give a text by --text" in refused(
        "generate", t5, "abak"
    )
    (tmp_path / "empty").mkdir()
    assert "empty has no file that ends in .txt" in refused("generate", t5, tmp_path / "empty")
    assert "column 'x' cannot be looked up" in refused("generate", t5, source, "--column", "x")
    missing = tmp_path / "no" / "out.txt"
    assert f"there is no directory {missing.parent}; make it first" in refused(
        "generate", t5, source, "--out", missing
    )
    missing = tmp_path / "no" / "out"
    assert f"there is no directory {missing.parent}" in refused("generate", t5, source, "--out", missing)
    assert "a file ends in .txt or .jsonl" in refused("generate", t5, source, "--out", tmp_path / "out.csv")
    assert "are no files" in refused("generate", t5, "--text", "a", "--out", tmp_path / "folder")
    assert "are no files" in refused("generate", t5, "-", "--out", tmp_path / "folder")
    assert "is an input" in refused("generate", t5, source, "--out", tmp_path)
    assert "give one --text" in refused("generate", t5, source, "--stream")
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    line = refused("generate", t5, source, tmp_path / "in.jsonl", "--out", tmp_path / "folder")
    assert "would both be answered in" in line


def test_a_vocabulary_that_is_not_the_weights(
    t5: Path, refused: Refused, models: dict[str, Path], tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(t5, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    config = json.loads((broken / "config.json").read_text())
    # Without rows for the sentinels a model works, as long as no text has any.
    cut = {name: tensor[:400] if tensor.shape[0] > 400 else tensor for name, tensor in weights.items()}
    save_file(cut, broken / "model.safetensors", {"format": "pt"})
    (broken / "config.json").write_text(json.dumps(config | {"vocab_size": 400}))
    assert _run(["generate", str(broken), "--text", "abak"]) == 0
    line = refused("generate", broken, "--text", "abak <extra_id_0>")
    assert (
        "input_ids holds 499, the model knows 0 to 399 (vocab_size): the tokenizer is another model's" in line
    )
    cut = {name: tensor[:390] if tensor.shape[0] == 400 else tensor for name, tensor in cut.items()}
    save_file(cut, broken / "model.safetensors", {"format": "pt"})
    (broken / "config.json").write_text(json.dumps(config | {"vocab_size": 390}))
    assert "the tokenizer has 400 pieces, the weights have 390 rows" in refused(
        "generate", broken, "--text", "abak"
    )


def test_electra_has_other_options(models: dict[str, Path], refused: Refused) -> None:
    command = ["generate", models["electra"], "--text", "abak"]
    assert "ELECTRA has no option num_beams" in refused(*command, "--num-beams", 4)
    assert "prefix is an option of T5" in refused(*command, "--prefix", "x")
    assert "ELECTRA cannot stream" in refused(*command, "--stream")
    assert "batch_tokens=0 must be at least 1" in refused(*command, "--batch-tokens", 0)
