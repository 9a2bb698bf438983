"""A task's model, whichever family it is of: how it is loaded, trained on rows and asked for answers."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from unmask import hub
from unmask.electra.encoder_decoder import MODEL_TYPE
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.config import KINDS
from unmask.tasks.answering import TRAINED, ElectraAnswerModel
from unmask.tasks.checks import TokenCounter, check_data
from unmask.tasks.encoder_decoder import EncoderDecoderTaskModel
from unmask.tasks.heads.choice import ChoiceModel
from unmask.tasks.heads.head import ElectraTaskModel
from unmask.tasks.heads.pairs import ElectraPairsModel, T5PairsModel
from unmask.tasks.heads.sequence import ClassificationModel, RegressionModel
from unmask.tasks.heads.span import SpanModel
from unmask.tasks.heads.tokens import TaggingModel
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.settings import ElectraWriting
from unmask.tasks.t5 import T5TaskModel
from unmask.tasks.task import Task
from unmask.training.loop import Batch, Loss

logger = logging.getLogger("unmask")

#: `Kind.head` → ELECTRA with that head. A writer has none: see `ElectraAnswerModel`.
HEADS: Mapping[str, type[ElectraTaskModel]] = {
    "label": ClassificationModel,
    "number": RegressionModel,
    "tokens": TaggingModel,
    "span": SpanModel,
    "choice": ChoiceModel,
}


class TaskModel(Protocol):
    """A model in the form in which a task trains it and asks it."""

    @property
    def model(self) -> nn.Module: ...

    def examples(self, rows: Sequence[Row]) -> Any:
        """The rows as a source of batches (`unmask.data.finetuning`)."""

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        """Of a batch's rows, the mean over the whole batch of which they are a part."""

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """The answers for rows, in their order; what is wanted of them is not looked at."""

    def save_pretrained(self, directory: Path) -> None: ...


def load_for_training(
    task: Task,
    name_or_path: str,
    rows: Sequence[Row],
    *,
    fresh_weights: bool,
    device: torch.device,
    seed: int = 0,
    electra_writes_by: ElectraWriting = "masks",
) -> TaskModel:
    """The model that will learn a task.

    Args:
        rows: the training rows, which decide a classifier's labels and how long an ELECTRA's answers can be.
        fresh_weights: keep the model's shape and tokenizer, but draw its weights anew: what the task alone
            teaches, without pre-training.
        seed: of draws that a model makes in its loss.
        electra_writes_by: see `FinetuneSettings`.

    Raises:
        UserError: no such model, or one whose family cannot do this kind of task.
    """
    if not task.its_kind.trains:
        raise UserError(f"task {task.name!r} is {task.kind}: there is nothing to learn, only to evaluate")
    directory = hub.find_model(name_or_path)
    family = family_of(directory)
    if family == "t5":
        return T5TaskModel.load(
            task, directory, rows=rows, fresh_weights=fresh_weights, device=device, dtype=TRAINED
        )
    if family == MODEL_TYPE:
        return EncoderDecoderTaskModel.load(
            task, directory, fresh_weights=fresh_weights, device=device, dtype=TRAINED
        )
    if electra_writes_by == MODEL_TYPE:
        return EncoderDecoderTaskModel.start(task, directory, fresh_weights=fresh_weights, device=device)
    if task.its_kind.head == "writer":
        return ElectraAnswerModel.for_training(
            task, directory, rows, fresh_weights=fresh_weights, seed=seed, device=device
        )
    head = HEADS[task.its_kind.head]
    return head.load(task, directory, rows=rows, fresh_weights=fresh_weights, device=device)


def load_for_prediction(
    task: Task, name_or_path: str | os.PathLike[str], *, device: torch.device
) -> TaskModel:
    """A model that has learnt a task.

    Raises:
        UserError: no such model, or one whose family cannot do this kind of task.
    """
    directory = hub.find_model(name_or_path)
    if task.its_kind.head == "pairs":
        pairs = T5PairsModel if family_of(directory) == "t5" else ElectraPairsModel
        return pairs.load(task, directory, device=device)
    family = family_of(directory)
    if family == "t5":
        return T5TaskModel.load(task, directory, device=device)
    if family == MODEL_TYPE:
        return EncoderDecoderTaskModel.load(task, directory, device=device)
    if task.its_kind.head == "writer":
        return ElectraAnswerModel.for_prediction(task, directory, device=device)
    head = HEADS[task.its_kind.head]
    return head.load(task, directory, rows=None, fresh_weights=False, device=device)


def family_of(directory: Path) -> str:
    """ "t5", "electra" or "encoder-decoder" (of two ELECTRAs), by what a model directory holds.

    Raises:
        UserError: another family.
    """
    if (directory / DISCRIMINATOR).is_dir() or (directory / GENERATOR).is_dir():
        return "electra"
    kind = hub.read_json(hub.base_of(directory) / hub.CONFIG).get("model_type")
    if isinstance(kind, str) and kind in KINDS:
        return "t5"
    if kind == MODEL_TYPE:
        return MODEL_TYPE
    if kind not in ("electra", "bert"):  # BERT's layout is an ELECTRA encoder's
        raise UserError(f"{directory} holds a model of type {kind!r}: only t5 and electra can be used")
    return "electra"


def token_counter(task: Task, name_or_path: str) -> TokenCounter | None:
    """Counts the tokens of rows as a model would read and write them if nothing were cut off. None where nothing is:
    ELECTRA reads long contexts in windows and long rows of tokens in parts."""
    directory, kind = hub.find_model(name_or_path), task.its_kind
    if family_of(directory) == "t5" or kind.head == "writer":
        both: Any = load_tokenizer if family_of(directory) == "t5" else ElectraTokenizer.from_pretrained
        tokenizer = both(directory)

        def of_texts(rows: Sequence[Row]) -> dict[str, list[int]]:
            return {
                "source": _lengths(tokenizer.encode_batch([kind.source_text(task, row) for row in rows])),
                "target": _lengths(tokenizer.encode_batch([kind.target_text(task, row) for row in rows])),
            }

        return of_texts if kind.trains else None
    electra = ElectraTokenizer.from_pretrained(directory)

    def of_segments(rows: Sequence[Row]) -> dict[str, list[int]]:
        texts = [task.segment_texts(row.sources) for row in rows]
        if kind.head != "choice":
            second = [text[1] for text in texts] if len(texts[0]) == 2 else None
            return {"source": _lengths(electra([text[0] for text in texts], second)["input_ids"])}
        firsts = [" ".join(text) for text, row in zip(texts, rows, strict=True) for _ in row.choices]
        lengths = iter(_lengths(electra(firsts, [text for row in rows for text in row.choices])["input_ids"]))
        # Of choices, the longest counts.
        return {"source": [max(next(lengths) for _ in row.choices) for row in rows]}

    return of_segments if kind.head in ("label", "number", "choice") else None


def _lengths(rows: Sequence[Sequence[int]]) -> list[int]:
    return [len(row) for row in rows]


def warn_of_data(task: Task, name_or_path: str) -> None:
    """Log what should be looked at before a model is trained on a task's data, a line for each."""
    for line in check_data(task, token_counter(task, name_or_path)).warnings():
        logger.warning("%s", line)
