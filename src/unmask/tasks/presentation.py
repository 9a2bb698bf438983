"""Scores as a table, for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unmask.electra.filling import Reading
from unmask.report import Cell, Column, Estimate, Table, Token, TokenMap
from unmask.tasks.metrics import OF_HUNDRED, Evaluation, Metric
from unmask.tasks.task import Task

#: What a metric is called where people read it.
METRIC_NAMES = {
    "bleu": "BLEU",
    "bleu_zh": "BLEU (zh)",
    "bleu_char": "BLEU of characters",
    "chrf": "chrF",
    "exact_match": "exact match",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "edit_f05": "F0.5 of edits",
    "edit_precision": "precision of edits",
    "edit_recall": "recall of edits",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "f1": "F1",
    "matthews": "Matthews correlation",
    "group_f1": "F1a",
    "group_exact_match": "exact match of groups",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "entity_f1": "entity F1",
    "entity_precision": "entity precision",
    "entity_recall": "entity recall",
    "tag_accuracy": "tag accuracy",
    "squad_f1": "SQuAD F1",
    "squad_exact_match": "SQuAD exact match",
    "mlqa_zh_f1": "MLQA F1 (zh)",
    "mlqa_zh_exact_match": "MLQA exact match (zh)",
}


def score_table(task: Task, evaluations: Mapping[str, Evaluation], rows: int) -> Table:
    """One line a system, one column a metric, with 95 % intervals."""
    columns: list[Column | str] = [
        "system",
        *(Column(METRIC_NAMES[metric], decimals=decimals(metric), best="highest") for metric in task.metrics),
    ]
    lines: list[Sequence[Cell]] = [
        (name, *(estimate(evaluation, metric) for metric in task.metrics))
        for name, evaluation in evaluations.items()
    ]
    return Table(f"{task.name}: {rows} held-out rows, 95 % bootstrap intervals", columns, lines)


def decimals(metric: str) -> int:
    """Digits after the point that a metric is shown with."""
    return 1 if metric in OF_HUNDRED else 3


def estimate(evaluation: Evaluation, metric: Metric) -> Estimate:
    """A score with its interval, as a cell."""
    interval = evaluation.intervals[metric]
    return Estimate(evaluation.scores[metric], interval.low, interval.high)


def as_json(evaluation: Evaluation) -> dict[str, dict[str, float | str]]:
    """Scores, intervals and signatures of one system, as metrics.json holds them."""
    return {
        metric: {
            "score": score,
            "low": evaluation.intervals[metric].low,
            "high": evaluation.intervals[metric].high,
            "signature": evaluation.signatures[metric],
        }
        for metric, score in evaluation.scores.items()
    }


def proposal_table(reading: Reading) -> Table:
    """What the generator proposes for each gap, with probabilities."""
    lines = [
        (str(number), *(f"{token} {share:.0%}" for token, share in options))
        for number, options in enumerate(reading.proposals.values(), start=1)
    ]
    ranks = [f"{rank}." for rank in range(1, len(lines[0]))]
    return Table("The generator's proposals", ["gap", *ranks], lines)


def suspicion_table(reading: Reading) -> Table:
    """How much the discriminator suspects each token, in the text's order."""
    assert reading.suspicion is not None
    lines = [
        (token, share, "█" * round(20 * share))
        for token, share in zip(reading.tokens, reading.suspicion, strict=True)
    ]
    return Table(
        "Replaced? The discriminator's suspicion of each token",
        ["token", Column("probability", decimals=2), ""],
        lines,
    )


def suspicion_map(reading: Reading, caption: str) -> TokenMap:
    """The same as a map for a page."""
    assert reading.suspicion is not None
    tokens = [Token(token, share) for token, share in zip(reading.tokens, reading.suspicion, strict=True)]
    return TokenMap(caption, tokens, "the discriminator's probability that a token was replaced")
