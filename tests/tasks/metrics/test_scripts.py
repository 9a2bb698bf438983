"""What a metric cannot read is said, and nothing of what it can."""

from __future__ import annotations

import pytest

from unmask.tasks.metrics import METRICS, unread

CHINESE = ["猫坐在垫子上。", "狗在 2 点睡觉"]


def test_latin_words_are_read() -> None:
    assert unread(METRICS, ["The cat sat.", "Die Katze saß auf der Matte.", "3.5"]) == []
    assert unread(METRICS, []) == unread(METRICS, [""]) == []


@pytest.mark.parametrize(
    ("metric", "instead"),
    [
        ("bleu", "bleu_zh or bleu_char"),
        ("squad_f1", "mlqa_zh_f1"),
        ("squad_exact_match", "mlqa_zh_exact_match"),
    ],
)
def test_what_stands_without_spaces(metric: str, instead: str) -> None:
    (line,) = unread([metric, "chrf"], [*CHINESE, "ok"])
    assert line.startswith(
        f"{metric} takes words to stand between spaces, and 85% of the references' letters"
    )
    assert line.endswith(f"name {instead} as a metric")


def test_rouge_reads_latin_letters() -> None:
    russian = ["Кошка сидит.", "Собака спит"]
    (line,) = unread(["bleu", "rouge_l"], russian)
    assert line.startswith(
        "rouge_l reads the letters a to z alone, and 100% of the references' letters are others"
    )
    assert unread(["bleu_zh", "bleu_char", "chrf", "mlqa_zh_f1", "accuracy"], [*russian, *CHINESE]) == []
