"""The model card of a pre-training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unmask.report.card import ModelCard, settings_as_facts
from unmask.training.corpora import Data, named
from unmask.training.meter import MEASURED
from unmask.training.recipe import OBJECTIVES, PretrainRecipe

Line = Mapping[str, Any]

#: Settings that say nothing about the model.
_HOUSEKEEPING = frozenset(
    {"family", "checkpoint_every", "keep_checkpoints", "keep_every", "evaluate_every", "log_every"}
)

_USE = {
    "t5": 'unmask fill MODEL "The king of ___ was ___ in 1812."\nunmask finetune TASK.toml MODEL --out RUN',
    "electra": "unmask finetune TASK.toml MODEL --out RUN",
}


def card_of_run(
    recipe: PretrainRecipe, data: Data, lines: Sequence[Line], parameters: int, start: str | None
) -> ModelCard:
    """What a finished run knows of its model.

    Args:
        lines: the whole metrics log.
        parameters: how many the model has, both halves of a pair together.
        start: what its weights began as; None: drawn afresh.
    """
    family = {"t5": "T5", "electra": "ELECTRA"}[recipe.family]
    objective = recipe.objective or OBJECTIVES[recipe.family][0]
    begun = "from drawn weights" if start is None else f"from the weights of `{start}`"
    summary = (
        f"{'An' if family == 'ELECTRA' else 'A'} {family} with {parameters:,} parameters, trained {begun} by "
        f"{objective.replace('-', ' ')} with unmask. It is a base for fine-tuning and answers no question by itself."
    )
    return ModelCard(
        title=f"{family}, {objective.replace('-', ' ')}",
        summary=summary,
        tags=["unmask", recipe.family, objective],
        sections={
            "Data": _data(data),
            "Scores": _scores(lines),
            "Recipe": settings_as_facts(recipe.as_table(), _HOUSEKEEPING),
        },
        use=_USE[recipe.family],
        limits=[*_limits(recipe), *_troubles(lines)],
    )


def _data(data: Data) -> list[tuple[str, str]]:
    facts = []
    for name, shards in named(data).items():
        for split in (shards.train, shards.validation):
            words = "training" if split is shards.train else "held out"
            label = f"{name}: {words}" if name else words
            facts.append(
                (
                    label,
                    f"{split.documents:,} documents, {split.tokens:,} tokens, {split.characters:,} characters",
                )
            )
        facts.append((f"{name}: SHA-256" if name else "SHA-256", shards.checksum))
    return facts


def _scores(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Held-out values at the beginning and at the end."""
    evaluations = [line for line in lines if line["kind"] in ("evaluation", "averaged")]
    if not evaluations:
        return []
    first, last = evaluations[0], evaluations[-1]
    return [
        (f"held-out {name.replace('_', ' ')}", f"{last[name]:.4f} (before training {first[name]:.4f})")
        for name in last
        if name in first and name not in ("step", "kind", *MEASURED)
    ]


def _limits(recipe: PretrainRecipe) -> list[str]:
    return [
        "It knows the language, the facts and the prejudices of the text above, and nothing else; it was not tested "
        "for bias or safety.",
        f"It was trained on at most {recipe.length} tokens at once.",
    ]


def _troubles(lines: Sequence[Line]) -> list[str]:
    """What the log warned of, as it came and went, and what was skipped."""
    warnings = [
        f"At step {line['step']:,} the log says: {line['message']}"
        for line in lines
        if line["kind"] == "warning"
    ]
    skipped = sum(line["kind"] == "skipped" for line in lines)
    return [*warnings, *([f"{skipped} steps without finite gradients were skipped."] if skipped else [])]
