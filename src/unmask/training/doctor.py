"""Before a run: what fits, how long it will take, what is likely wrong."""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.training.checks import Reading, check_data, check_recipe
from unmask.training.corpora import Data
from unmask.training.memory import State, available, state_of
from unmask.training.meter import with_prefix
from unmask.training.precision import is_bfloat16_faster
from unmask.training.pretraining import pretraining_of
from unmask.training.recipe import PretrainRecipe
from unmask.training.settings import PLAIN, Execution
from unmask.training.stand_in import stand_in
from unmask.training.starting import shaped
from unmask.training.trial import Trial, try_steps

#: Of the memory that there is, what a run may be reckoned to need.
FULL = 0.95
_GIB = 2**30
_DAY = 24 * 3600


@dataclass(frozen=True)
class Findings:
    """What the doctor says.

    Attributes:
        facts: name → text, in the order in which they are shown.
        warnings: what is likely wrong, each with the value and the way out.
    """

    facts: Mapping[str, str]
    warnings: list[str]


def examine(
    recipe: PretrainRecipe,
    data: Data | None,
    tokenizer: AnyT5Tokenizer | ElectraTokenizer | None,
    place: Path,
    *,
    device: torch.device,
    execution: Execution = PLAIN,
) -> Findings:
    """Look at a recipe, on the machine that will run it: some steps are made and forgotten.

    Args:
        data: what it will read, with its tokenizer; None: made-up text, and nothing is said of the data.
        place: where checkpoints will go, or the nearest directory above that is there.

    Raises:
        UserError: settings that do not fit, or too little data.
    """
    recipe = shaped(recipe)
    with tempfile.TemporaryDirectory() as folder:
        given = data is not None and tokenizer is not None
        read, vocabulary = (data, tokenizer) if given else stand_in(recipe, Path(folder) / "data")
        assert read is not None and vocabulary is not None
        one = dataclasses.replace(
            recipe, batch_size=1, batch_tokens=None, initial_batch_size=None, batch_warmup_steps=0
        )
        probe = pretraining_of(one, read, vocabulary, torch.device("cpu"))
        state = state_of(probe.model, recipe.optimiser, with_average=recipe.ema_decay > 0)
        if (
            recipe.checkpoint_every and device.type != "cuda"
        ):  # a GPU's state is copied into memory of the host
            state = dataclasses.replace(state, copy=state.checkpoint)
        flops = max(probe.flops(probe.batches[number]) for number in range(4))
        room = available(device)
        facts = _state_facts(recipe, state, room)
        del probe
        trial = None
        if state.total < FULL * room:
            trial = try_steps(recipe, read, vocabulary, device, flops, execution)
            facts |= _trial_facts(recipe, state, trial)
    warnings = [
        *check_recipe(recipe),
        *_check_memory(recipe, state, trial, room),
        *_check_precision(recipe, device),
        *_check_disk(recipe, state, place),
    ]
    if given:
        facts |= _data_facts(recipe, read, trial)
        for name, shards in read.items() if isinstance(read, Mapping) else [("", read)]:
            own = check_data(recipe, shards, vocabulary.unk_token_id, _reading(recipe, shards, read, trial))
            warnings += [f"{name}: {text}" if name else text for text in own]
    return Findings(facts, warnings)


def _state_facts(recipe: PretrainRecipe, state: State, room: int) -> dict[str, str]:
    parts = {
        "weights": state.weights,
        "gradients": state.gradients,
        recipe.optimiser: state.optimiser,
        "average": state.average,
    }
    shown = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
    return {
        "parameters": f"{state.weights // 4:,}",
        "memory, whatever the batch": f"{_gib(state.total)} ({shown})",
        "memory there is": _gib(room),
        "a checkpoint on the disk": _gib(state.checkpoint),
    }


def wanted_examples(recipe: PretrainRecipe, trial: Trial) -> float:
    """Examples of a step of the run, a trial's being perhaps fewer."""
    if recipe.batch_size is not None:
        return float(recipe.batch_size)
    # A budget counts tokens before corruption, which are about those that are read after it.
    return (recipe.batch_tokens or 0) / (trial.tokens / trial.examples)


def reckoned_memory(recipe: PretrainRecipe, state: State, trial: Trial) -> int:
    """Bytes of a step of the run: its state, what a batch keeps, what the trial held beyond these, and the copy of a
    checkpoint that is being written."""
    beyond = max(0, trial.peak - state.total - trial.kept)
    return int(
        state.total + state.copy + trial.kept * wanted_examples(recipe, trial) / trial.examples + beyond
    )


def _trial_facts(recipe: PretrainRecipe, state: State, trial: Trial) -> dict[str, str]:
    share = wanted_examples(recipe, trial) / trial.examples
    seconds, flops = trial.seconds * share, trial.flops * share
    rate = trial.flops / trial.seconds
    size = (
        f"{trial.examples:.0f} examples"
        if share <= 1.01
        else (f"{trial.examples:.0f} of a step's {wanted_examples(recipe, trial):,.0f} examples")
    )
    measured = f"{_gib(trial.peak)} at its peak" if trial.peak else "its peak is not known here"
    return {
        "measured": f"{trial.steps} steps of {size}, {trial.precision}: {trial.seconds:.3g} s each, "
        f"{trial.tokens / trial.seconds:,.0f} tokens/s",
        "of the machine": f"{with_prefix(rate)}FLOP/s, {rate / trial.machine_peak:.0%} of its fastest product "
        f"({with_prefix(trial.machine_peak)}FLOP/s)",
        "memory of the measured steps": f"reckoned {_gib(state.total + trial.kept)} (activations "
        f"{_gib(trial.kept)}), measured {measured}",
        "memory of a step": _gib(reckoned_memory(recipe, state, trial))
        + (f", {_gib(state.copy)} of it while a checkpoint is written" if state.copy else ""),
        "a step": f"{with_prefix(flops)}FLOP, {seconds:.3g} s, {trial.tokens * share:,.0f} tokens",
        "the run": f"{recipe.steps:,} steps, {with_prefix(flops * recipe.steps)}FLOP, "
        f"{with_prefix(trial.tokens * share * recipe.steps)}tokens, {_duration(seconds * recipe.steps)} without "
        "evaluations and checkpoints",
    }


def _reading(recipe: PretrainRecipe, shards: Shards, data: Data, trial: Trial | None) -> Reading:
    """Of one corpus, by its share of the examples."""
    tokens = shards.train.tokens
    if trial is None or not tokens:
        return Reading(0.0, tokens)
    share = 1.0
    if isinstance(data, Mapping):
        rates = recipe.mixture_rates({name: each.train.tokens for name, each in data.items()})
        name = next(name for name, each in data.items() if each is shards)
        share = rates[name] / sum(rates.values())
    # What T5's sentinels and `</s>` add is about what corruption takes away.
    read = trial.tokens / trial.examples * wanted_examples(recipe, trial) * recipe.steps * share
    return Reading(read / tokens, tokens)


def _data_facts(recipe: PretrainRecipe, data: Data, trial: Trial | None) -> dict[str, str]:
    facts = {}
    for name, shards in data.items() if isinstance(data, Mapping) else [("", data)]:
        reading = _reading(recipe, shards, data, trial)
        train = shards.train
        facts[f"data {name}".strip()] = (
            f"{train.tokens:,} tokens in {train.documents:,} documents, "
            f"{train.characters / max(1, train.tokens):.2f} characters a token, read {reading.epochs:.2g} times; "
            f"{shards.validation.tokens:,} held out"
        )
    return facts


def _check_memory(recipe: PretrainRecipe, state: State, trial: Trial | None, room: int) -> Iterator[str]:
    if trial is None:
        yield (
            f"weights, gradients and optimiser take {_gib(state.total)}, and there are {_gib(room)}: choose adafactor, "
            "a smaller model or a larger machine"
        )
        return
    need = reckoned_memory(recipe, state, trial)
    if need > FULL * room:
        batch = wanted_examples(recipe, trial)
        kept = trial.kept / trial.examples
        fits = int((FULL * room - (need - kept * batch)) / kept)
        yield (
            f"a step of {batch:,.0f} examples takes {_gib(need)}, and there are {_gib(room)}: give batch_size "
            f"{max(1, fits)} or less"
        )


def _check_precision(recipe: PretrainRecipe, device: torch.device) -> Iterator[str]:
    if recipe.precision == "auto":
        return
    fast = is_bfloat16_faster(device)
    if recipe.precision == "bfloat16" and not fast:
        yield "precision is bfloat16, which this machine has no units for: float32 is faster; auto chooses"
    if recipe.precision == "float32" and fast:
        yield "precision is float32, and this machine multiplies bfloat16 faster; auto chooses"


def _check_disk(recipe: PretrainRecipe, state: State, place: Path) -> Iterator[str]:
    if not recipe.checkpoint_every:
        return
    place = place.absolute()
    while not place.exists():
        place = place.parent
    kept = recipe.keep_checkpoints + 1
    if recipe.keep_every:
        kept += recipe.steps // math.lcm(recipe.keep_every, recipe.checkpoint_every)
    need, room = kept * state.checkpoint + state.weights, shutil.disk_usage(place).free
    if need > room:
        yield (
            f"{kept} checkpoints and the model take {_gib(need)}, and {place} has {_gib(room)} left: free some, or "
            "lower keep_checkpoints or raise keep_every"
        )


def _gib(size: float) -> str:
    return f"{size / _GIB:,.2f} GiB" if size >= 0.1 * _GIB else f"{size / 2**20:,.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:,.1f} days"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
