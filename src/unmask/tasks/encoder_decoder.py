"""A text-to-text task for an encoder–decoder that starts from an ELECTRA: it reads [CLS] source [SEP], and writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from unmask.data.finetuning import Pairs
from unmask.electra.encoder_decoder import EncoderDecoderModel
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.generation.writing import SequenceWriter
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.task import Task
from unmask.training.batches import task_loss, to_layout, to_tensor
from unmask.training.loop import Batch, Loss


class EncoderDecoderWriter(SequenceWriter):
    """An encoder–decoder that writes texts."""

    tokenizer: ElectraTokenizer

    def __init__(self, model: EncoderDecoderModel, tokenizer: ElectraTokenizer, **settings: Any) -> None:
        """Args:
        settings: as for `SequenceWriter`; sources are cut to the encoder's positions, whatever they say.

        Raises:
            UserError: as of `SequenceWriter`, or more tokens to write than there are positions.
        """
        super().__init__(model, tokenizer, **settings)
        room = model.config.decoder.max_position_embeddings - len(self.decoder_prefix)
        if self.limit > room:
            raise UserError(f"max_new_tokens={self.limit} is more than the model's positions leave: {room}")
        read = model.config.encoder.max_position_embeddings
        self._limit = min(self.max_source_length or read, read)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return encode_sources(self.tokenizer, [self.prefix + text for text in texts], self._limit)

    def stream(self, text: str, number: int = 0) -> Iterator[str]:
        """WordPiece's spaces are settled by what comes later.

        Raises:
            UserError: always.
        """
        raise UserError(
            "an ELECTRA's text cannot stream, its spaces depend on what follows: leave --stream out"
        )


class EncoderDecoderTaskModel:
    """An encoder–decoder as a task trains it and asks it."""

    def __init__(self, task: Task, model: EncoderDecoderModel, tokenizer: ElectraTokenizer) -> None:
        if task.its_kind.head != "writer":
            raise UserError(
                f"task {task.name!r} is {task.kind}, an encoder–decoder writes: use an ELECTRA, or make it "
                "text-to-text"
            )
        self.task, self.model, self.tokenizer = task, model, tokenizer

    @classmethod
    def start(cls, task: Task, directory: Path, *, fresh_weights: bool, device: torch.device) -> Self:
        """A model to be trained, warm-started from the ELECTRA in the directory.

        Raises:
            UserError: no ELECTRA there.
        """
        model = EncoderDecoderModel.from_electra(directory, device=device)
        if fresh_weights:
            model.initialise()
        return cls(task, model, ElectraTokenizer.from_pretrained(directory))

    @classmethod
    def load(
        cls,
        task: Task,
        directory: Path,
        *,
        device: torch.device,
        fresh_weights: bool = False,
        dtype: str | None = None,
    ) -> Self:
        """An encoder–decoder as it is in a directory."""
        model = EncoderDecoderModel.from_pretrained(directory, device=device, dtype=dtype)
        if fresh_weights:
            model.initialise()
        return cls(task, model, ElectraTokenizer.from_pretrained(directory))

    def examples(self, rows: Sequence[Row]) -> Pairs:
        config, end = self.model.config, self.tokenizer.sep_token_id
        targets = self.tokenizer.encode_batch([row.target for row in rows], add_special_tokens=False)
        room = min(self.task.max_target_length, config.decoder.max_position_embeddings) - 1
        return Pairs(self._sources(rows), [[*ids[:room], end] for ids in targets])

    def _sources(self, rows: Sequence[Row]) -> list[list[int]]:
        limit = min(self.task.max_source_length, self.model.config.encoder.max_position_embeddings)
        return encode_sources(self.tokenizer, [self.task.text(row.sources) for row in rows], limit)

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        device = self.model.device
        total = self.model.loss_sum(
            to_tensor(batch["inputs"], device),
            to_layout(batch, device, "input_lengths"),
            to_tensor(batch["targets"], device),
            to_layout(batch, device, "target_lengths"),
        )
        counted, tokens = len(batch["targets"]), len(batch["inputs"]) + len(batch["targets"])
        return task_loss(total, counted, len(whole["targets"]), tokens)

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        room = self.model.config.decoder.max_position_embeddings
        writer = EncoderDecoderWriter(
            self.model,
            self.tokenizer,
            max_new_tokens=min(self.task.max_target_length, room),
            max_source_length=self.task.max_source_length,
        )
        written = writer.write([self.task.text(row.sources) for row in rows])
        return [Prediction(found[0].text.strip()) for found in written]

    def save_pretrained(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def encode_sources(tokenizer: ElectraTokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
    """[CLS] text [SEP] of each text, cut to `limit` with [SEP] always last."""
    encoded = tokenizer.encode_batch(texts)
    return [ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]] for ids in encoded]
