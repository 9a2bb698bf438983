"""What a run reads: one corpus, or several by name that take turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from unmask.data.shards import Shards
from unmask.data.stream import EvaluationBatches, Growth, Source, TrainingBatches
from unmask.errors import UserError
from unmask.nn.sums import Sums
from unmask.training.recipe import PretrainRecipe

#: One corpus, or corpora by name.
Data = Shards | Mapping[str, Shards]

T = TypeVar("T")


def checksums(data: Data) -> str | dict[str, str]:
    """What a run's result depends on."""
    if isinstance(data, Shards):
        return data.checksum
    return {name: shards.checksum for name, shards in sorted(data.items())}


def mixed_batches(
    recipe: PretrainRecipe, data: Data, make: Callable[[Shards], Source], plans: Path | None
) -> TrainingBatches:
    """The stream that a recipe trains on; the order in which corpora are named does not matter.

    Args:
        make: a corpus' source.
        plans: see `TrainingBatches`.

    Raises:
        UserError: a corpus that is too small, or rates that are not of these corpora.
    """
    corpora = named(data)
    if isinstance(data, Shards):
        recipe.check_single()
        rates = None
    else:
        rates = recipe.mixture_rates({name: shards.train.tokens for name, shards in corpora.items()})
    return TrainingBatches(
        _each(corpora, make),
        rates=rates,
        batch_size=recipe.batch_size,
        batch_tokens=recipe.batch_tokens,
        seed=recipe.seed,
        plans=plans,
        growth=None
        if recipe.initial_batch_size is None
        else Growth(recipe.initial_batch_size, recipe.batch_warmup_steps),
    )


def held_out_by_corpus(
    recipe: PretrainRecipe, data: Data, make: Callable[[Shards], Source]
) -> dict[str, EvaluationBatches]:
    """Each corpus' held-out batches: those of a run on it alone. A corpus without a name is called "".

    Args:
        make: a corpus' source.

    Raises:
        UserError: a corpus whose held-out text is too small.
    """

    def batches(shards: Shards) -> EvaluationBatches:
        return EvaluationBatches(
            make(shards), batch_size=recipe.batch_size, batch_tokens=recipe.batch_tokens, seed=recipe.seed
        )

    return _each(named(data), batches)


def metrics_by_corpus(measured: Mapping[str, Sequence[Sums]]) -> dict[str, float]:
    """Held-out metrics of all corpora together, and as metric/NAME of each that has a name.

    Args:
        measured: name → what was measured of each batch.
    """
    metrics = _means([part for parts in measured.values() for part in parts])
    for name, parts in measured.items():
        if name:
            metrics |= {f"{metric}/{name}": value for metric, value in _means(parts).items()}
    return metrics


def _means(parts: Sequence[Sums]) -> dict[str, float]:
    return {name: float(value) for name, value in parts[0].joined(parts).metrics().items()}


def named(data: Data) -> dict[str, Shards]:
    return {"": data} if isinstance(data, Shards) else dict(sorted(data.items()))


def _each(corpora: Mapping[str, Shards], make: Callable[[Shards], T]) -> dict[str, T]:
    made = {}
    for name, shards in corpora.items():
        try:
            made[name] = make(shards)
        except UserError as error:
            raise UserError(f"corpus {name!r}: {error}" if name else str(error)) from None
    return made
