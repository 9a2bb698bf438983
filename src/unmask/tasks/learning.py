"""How a learner is trained: defaults for its family and size, the best weights kept, the outcome noted."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask import hub
from unmask.data.stream import TrainingBatches
from unmask.electra.config import ElectraConfig
from unmask.electra.encoder_decoder import EncoderDecoderModel
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.report.card import CARD, Facts, ModelCard, write_card
from unmask.t5.config import T5Config
from unmask.tasks.card import card_of_lesson
from unmask.tasks.models import TaskModel, family_of
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.validation import Judge
from unmask.training import best
from unmask.training.loop import CHECKPOINTS, LossOf, train
from unmask.training.ranks import ALONE, Ranks
from unmask.training.runs import MODEL
from unmask.training.settings import PLAIN, Execution

logger = logging.getLogger("unmask")

#: What a run came to, beside its model.
OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Lesson:
    """What is learnt, by whom.

    Attributes:
        sources: of batches (`unmask.data.stream`): one, or several by name.
        rows: how many rows an epoch has.
        label: what the progress line calls the work.
        metric: the value of `judge` that decides.
        judge: None: the last weights are kept.
        about: what the model's card says of the data (name, value).
        rates: of several sources.
        loss: None: the learner's own.
    """

    learner: TaskModel
    sources: Any
    rows: int
    label: str
    metric: str
    judge: Judge | None = None
    about: Facts = ()
    rates: Mapping[str, float] | None = None
    loss: LossOf | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        metric: what it is judged by.
        score: the best on the validation rows; None without them.
        baseline: what is scored without a look at the input.
        step, steps: after which the weights are from that are kept, and how many were planned.
    """

    metric: str
    score: float | None
    baseline: float | None
    step: int
    steps: int

    @property
    def has_failed(self) -> bool:
        """The model is no better than an answer without a look at the input."""
        if self.score is None or self.baseline is None:
            return False
        return math.isnan(self.score) or self.score <= self.baseline

    @classmethod
    def read(cls, directory: Path) -> Outcome:
        """The outcome of a finished run."""
        return cls(**hub.read_json(directory / OUTCOME))


def learn(
    lesson: Lesson,
    base: str,
    directory: Path,
    settings: FinetuneSettings,
    *,
    fresh_weights: bool = False,
    ranks: Ranks = ALONE,
    execution: Execution = PLAIN,
) -> Outcome:
    """Train, and write the model, or what LoRA learnt, to `directory/model`; continues a stopped run.

    A run whose score is at or under that of the simplest baseline is reported as failed.

    Args:
        base: the directory or Hub name of the model that the learner was loaded from.
        ranks, execution: see `loop.train`.

    Raises:
        UserError: a setting that the model does not have.
    """
    learner: Any = lesson.learner
    model: Any = learner.model
    family, width = shape_of(base)
    writer = isinstance(model, ElectraForConditionalGeneration | EncoderDecoderModel)
    full = settings.with_defaults(family, width, lesson.rows, writer=writer, fresh_weights=fresh_weights)
    if full.lora_rank:
        if ranks.count > 1:
            raise UserError("LoRA runs in one process: leave torchrun out")
        adapted = _add_lora(model, base, full)
    batches = TrainingBatches(lesson.sources, batch_size=full.batch_size, rates=lesson.rates, seed=full.seed)
    assert full.epochs is not None
    steps = max(1, round(full.epochs * batches.batches_per_epoch))
    judged = None if lesson.judge is None else lesson.metric
    log = train(
        model,
        batches,
        lesson.loss or learner.loss,
        full.loop_settings(steps, batches.batches_per_epoch, judged),
        directory,
        label=lesson.label,
        evaluate=lesson.judge,
        ranks=ranks,
        execution=execution,
    )
    kept = best.best_evaluation(log.lines, lesson.metric) if lesson.judge is not None else None
    outcome = Outcome(
        lesson.metric,
        None if kept is None else float(kept[lesson.metric]),
        None if lesson.judge is None else lesson.judge.baseline(),
        steps if kept is None else int(kept["step"]),
        steps,
    )
    with ranks.together():
        if ranks.is_first:
            card = card_of_lesson(lesson, outcome, base, family, full, fresh_weights=fresh_weights)
            _write(lesson, outcome, card, directory, adapted if full.lora_rank else None)
    if outcome.has_failed:
        logger.warning(
            "%s has failed: %s %.4g on the validation rows, and %.4g without a look at the input; try another seed "
            "(--seeds makes several and repeats those that fail), or another learning rate",
            directory,
            outcome.metric,
            outcome.score,
            outcome.baseline,
        )
    return outcome


def _write(lesson: Lesson, outcome: Outcome, card: ModelCard, directory: Path, adapted: str | None) -> None:
    """The outcome and the model with its card; or, of the model named `adapted`, the adapter."""
    learner: Any = lesson.learner
    hub.write_json(directory / OUTCOME, dataclasses.asdict(outcome))
    with hub.atomic_directory(directory / MODEL) as temporary:
        if adapted is None:
            learner.save_pretrained(temporary)
        else:
            learner.tokenizer.save_pretrained(temporary)
            learner.model.save_adapter(temporary, adapted)
        write_card(temporary / CARD, card)
    # What a stopped run would have continued from.
    shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)
    (directory / best.FILE).unlink(missing_ok=True)


def shape_of(model: str) -> tuple[str, int]:
    """The family of a model and the width of its layers.

    Raises:
        UserError: no such model, or one of another family.
    """
    directory = hub.base_of(hub.find_model(model))
    family = family_of(directory)
    halves = [directory / half for half in (DISCRIMINATOR, GENERATOR) if (directory / half).is_dir()]
    config = hub.read_json((halves or [directory])[0] / hub.CONFIG)
    if family == "t5":
        return family, int(config.get("d_model", T5Config.d_model))
    # An encoder-decoder keeps the two configs inside its own.
    return family, int(config.get("encoder", config).get("hidden_size", ElectraConfig.hidden_size))


def _add_lora(model: Any, base: str, settings: FinetuneSettings) -> str:
    """Adapt the model, and return what an adapter names as the model that it adapts."""
    directory = hub.find_model(base)
    if isinstance(model, ElectraForConditionalGeneration | EncoderDecoderModel):
        raise UserError("an ELECTRA that learns to write is trained whole: leave --lora-rank out")
    if hub.is_adapter(directory):
        raise UserError(f"{base} is an adapter itself: write it as a model first (unmask convert {base} OUT)")
    model.add_lora(
        settings.lora_targets,
        rank=settings.lora_rank,
        alpha=settings.lora_alpha,
        dropout=settings.lora_dropout,
    )
    if (directory / DISCRIMINATOR).is_dir():
        directory = directory / DISCRIMINATOR
    return str(directory.absolute()) if Path(base).expanduser().is_dir() else base
