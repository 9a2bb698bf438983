"""Scores of corrections are ERRANT's."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy
from errant.annotator import Annotator
from errant.commands import compare_m2
from errant.en import merger
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.tasks import metrics
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.metrics import Judged, bootstrap_interval, check_installed, row_statistics
from unmask.tasks.task import Task

NAMES = ("edit_precision", "edit_recall", "edit_f05")
WORDS = st.lists(
    st.sampled_from(["a", "the", "The", "cat", "cats", "sat", "sits", "on", "mat", "."]), max_size=7
)
TEXTS = WORDS.map(" ".join)
ROWS = st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=6)

#: Without a tagger.
annotator = Annotator("en", spacy.blank("en"), merger)


def m2(source: str, others: list[str]) -> str:
    """A sentence's block of an M2 file, as `errant_parallel -merge all-split` writes it, but for the kinds of edits."""
    lines = [f"S {source}"]
    for coder, other in enumerate(others):
        alignment = annotator.align(annotator.parse(source), annotator.parse(other))
        edits = annotator.merge(alignment, "all-split")
        for edit in edits:
            edit.type = "R:OTHER"
        lines += [edit.to_m2(coder) for edit in edits]
        if not edits:
            lines.append(f"A -1 -1|||noop|||-NONE-|||REQUIRED|||-NONE-|||{coder}")
    return "\n".join(lines)


def scores(rows: list[tuple[str, str, list[str]]]) -> tuple[float, float, float]:
    sources, predictions, references = ([row[place] for row in rows] for place in range(3))
    judged = Judged(references, sources=sources)  # type: ignore[arg-type]
    return tuple(row_statistics(name, predictions, judged).total() for name in NAMES)  # type: ignore[arg-type,return-value]


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_scores_are_those_of_compare_m2(rows: list[tuple[str, str, list[str]]]) -> None:
    options = Namespace(
        beta=0.5, verbose=False, dt=False, ds=False, cs=False, cse=False, single=False, multi=False, filt=[]
    )
    best: Counter[str] = Counter({"tp": 0, "fp": 0, "fn": 0})
    for source, prediction, references in rows:
        found, wanted = (
            compare_m2.process_edits(compare_m2.simplify_edits(m2(source, texts)), options)
            for texts in ([prediction], references)
        )
        counts, _ = compare_m2.evaluate_edits(found, wanted, best, 0, source, options)
        best += Counter(counts)
    wanted = compare_m2.computeFScore(best["tp"], best["fp"], best["fn"], 0.5)
    assert scores(rows) == pytest.approx(wanted, abs=5.1e-5), "theirs are rounded to four digits"


def test_the_command_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ("he go to school", "he goes to the school", ["he goes to school"]),
        ("I likes it .", "I likes it .", ["I like it .", "I liked it ."]),
        ("fine", "fine", ["fine"]),
    ]
    (tmp_path / "found.m2").write_text("\n\n".join(m2(source, [found]) for source, found, _ in rows))
    (tmp_path / "right.m2").write_text("\n\n".join(m2(source, wanted) for source, _, wanted in rows))
    monkeypatch.setattr(
        sys,
        "argv",
        ["errant_compare", "-hyp", str(tmp_path / "found.m2"), "-ref", str(tmp_path / "right.m2")],
    )
    compare_m2.main()
    assert "1\t1\t1\t0.5\t0.5\t0.5" in capsys.readouterr().out
    assert scores(rows) == (0.5, 0.5, 0.5)


def test_what_is_copied_scores_nothing_and_precision_counts_more() -> None:
    assert scores([("a cats", "a cats", ["a cat"])]) == (1, 0, 0)
    assert scores([("a cat", "a cat", ["a cat"])]) == (1, 1, 1)
    assert scores([("a cats", "", ["a cat"])]) == (0, 0, 0)
    assert scores([("", "a cat", ["a cat"])]) == (1, 1, 1)
    # One of two edits made, and one made that was not wanted beside both.
    assert scores([("a b c", "A b c", ["A B c"])]) == pytest.approx((1, 1 / 2, 1.25 * 0.5 / 0.75))
    assert scores([("a b c", "A B C", ["A B c"])]) == pytest.approx((2 / 3, 1, 1.25 * (2 / 3) / (1 / 6 + 1)))
    statistics = row_statistics("edit_f05", ["x"], Judged([["y"]], sources=["x"]))
    assert bootstrap_interval(statistics).high == 0
    with pytest.raises(ValueError, match="no rows to score"):
        row_statistics("edit_f05", ["x"], [["y"]])


def test_what_does_not_fit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match="edit_recall judges what was changed in one text, and 'source' names 2"
    ):
        Task("t", "text-to-text", ("a", "b"), "c", metrics=("edit_recall",))
    path = tmp_path / "rows.csv"
    path.write_text("a,c\nx,y\n")
    task = Task("t", "text-to-text", ("a",), "c", test=path, metrics=("edit_f05", "rouge1"))
    assert HeldOut.read(task, "test").judged.sources == ["x"]

    def missing(module: str) -> Any:
        return None if module == "errant" else module

    monkeypatch.setattr(metrics, "find_spec", missing)
    check_installed(["bleu", "rouge1"])
    with pytest.raises(UserError, match=r"edit_f05 needs errant: pip install 'unmask\[correction\]'"):
        HeldOut.read(task, "test")
