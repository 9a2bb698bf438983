"""The page and the numbers that `unmask quickstart` ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unmask import hub
from unmask.data.shards import Shards
from unmask.electra.filling import Reading, read_text
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.report import (
    Block,
    Curves,
    Heading,
    KeyFacts,
    Page,
    Paragraph,
    Sample,
    Samples,
    Series,
    write_page,
)
from unmask.tasks.presentation import METRIC_NAMES, decimals, proposal_table, score_table, suspicion_map
from unmask.tasks.study import PRETRAINED, Study
from unmask.training.metrics import read_metrics
from unmask.training.recipe import PretrainRecipe

#: Held-out rows shown with their answers.
SHOWN_ROWS = 6


@dataclass(frozen=True)
class Pretrained:
    """A finished pre-training run.

    Attributes:
        curves: name of a held-out metric → (step, value), in order.
        tokens: of the training split; unigram_entropy: of the held-out split, in nats a token.
    """

    recipe: PretrainRecipe
    model: Path
    curves: Mapping[str, list[tuple[int, float]]]
    tokens: int
    unigram_entropy: float

    @classmethod
    def read(cls, recipe: PretrainRecipe, shards: Shards, run: Path, model: Path) -> Pretrained:
        lines = [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "evaluation"]
        names = [name for name in lines[0] if name not in ("step", "kind")]
        curves = {name: [(line["step"], line[name]) for line in lines] for name in names}
        return cls(recipe, model, curves, shards.train.tokens, shards.validation.unigram_entropy)

    @property
    def losses(self) -> dict[str, list[tuple[int, float]]]:
        return {name: points for name, points in self.curves.items() if name.endswith("loss")}

    def as_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.as_table(),
            "training_tokens": self.tokens,
            "held_out_unigram_entropy": self.unigram_entropy,
            "held_out": {
                name: {"start": points[0][1], "end": points[-1][1], "curve": points}
                for name, points in self.curves.items()
            },
            "held_out_end_over_start": {
                name: points[-1][1] / points[0][1] for name, points in self.losses.items()
            },
        }


def read_sample_text(model: Path, text: str, *, device: torch.device) -> Reading:
    """What a pre-trained pair makes of one sentence."""
    electra = ElectraForConditionalGeneration.from_pretrained(model, device=device)
    return read_text(electra, electra.tokenizer, text)


def write_report(
    out: Path, t5: Pretrained, electra: Pretrained, restaurants: Study, senses: Study, reading: Reading
) -> None:
    """Write `metrics.json`, which holds every number of the page, and `report.html`."""
    numbers = {
        "t5": t5.as_json(),
        "electra": electra.as_json(),
        "restaurants": restaurants.as_json(),
        "senses": senses.as_json(),
        "suspicion": {
            "tokens": reading.tokens,
            "probabilities": reading.suspicion,
            "proposals": {str(place): options for place, options in reading.proposals.items()},
        },
    }
    hub.write_json(out / "metrics.json", numbers)
    write_page(out / "report.html", _page(t5, electra, restaurants, senses, reading))


def _page(t5: Pretrained, electra: Pretrained, restaurants: Study, senses: Study, reading: Reading) -> Page:
    return Page(
        "unmask quickstart",
        [
            Paragraph(
                "Two models, pre-trained here from nothing on a small corpus, then fine-tuned on one real task "
                "each. They are tiny: what counts is that every step is the real one."
            ),
            Heading("T5: describing a restaurant from its attributes"),
            *_study_blocks(restaurants),
            _samples(restaurants),
            Heading("ELECTRA: the sense of a dictionary definition"),
            *_study_blocks(senses),
            _samples(senses),
            Heading("Pre-training"),
            *_pretraining_blocks("T5, span corruption", t5),
            *_pretraining_blocks("ELECTRA, replaced-token detection", electra),
            Heading("ELECTRA looks at a sentence"),
            proposal_table(reading),
            suspicion_map(
                reading, "The gap filled with the generator's first proposal, as the discriminator sees it"
            ),
        ],
    )


def _study_blocks(study: Study) -> list[Block]:
    gain, metric = study.gain, METRIC_NAMES[study.task.metrics[0]]
    verdict = "more than chance explains" if gain.is_clear else "within what chance explains"
    digits = decimals(study.task.metrics[0])
    return [
        score_table(study.task, study.evaluations, len(study.held_out.rows)),
        Paragraph(
            f"Pre-training changes {metric} by {gain.value:+.{digits}f} "
            f"(95 % paired bootstrap interval {gain.low:+.{digits}f} to {gain.high:+.{digits}f}): {verdict}. "
            f"Both models learnt from the same {len(study.held_out.training):,} rows for the same number of steps."
        ),
    ]


def _samples(study: Study) -> Samples:
    rows = study.held_out.rows
    chosen = range(0, len(rows), max(1, len(rows) // SHOWN_ROWS))
    answers = study.evaluations[PRETRAINED].predictions
    return Samples(
        f"Held-out rows at equal distances, answered by the {PRETRAINED} model",
        [
            Sample(" / ".join(rows[row].sources), answers[row], rows[row].references[:3])
            for row in list(chosen)[:SHOWN_ROWS]
        ],
    )


def _pretraining_blocks(name: str, run: Pretrained) -> list[Block]:
    facts = [
        ("steps", f"{run.recipe.steps:,} of {run.recipe.batch_size} examples"),
        ("corpus", f"{run.tokens:,} tokens"),
        ("unigram entropy of held-out text", f"{run.unigram_entropy:.2f} nats a token"),
    ]
    for metric, points in run.curves.items():
        start, end = points[0][1], points[-1][1]
        facts.append((f"held-out {metric.replace('_', ' ')}", f"{start:.3f} → {end:.3f}"))
    last = run.recipe.steps
    series = [
        Series(metric.replace("_", " "), [step for step, _ in points], [value for _, value in points])
        for metric, points in run.losses.items()
    ]
    entropy = Series("unigram entropy", [0, last], [run.unigram_entropy] * 2)
    return [
        Heading(name, level=3),
        KeyFacts(facts),
        Curves(f"{name}: held-out losses", [*series, entropy], "step", "nats a token"),
    ]
