"""A task for T5: text in, text out; where there are only so many answers, the likeliest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import nn

from unmask.data.finetuning import Pairs
from unmask.errors import UserError
from unmask.generation.batching import batches_by_length
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, load_tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import encode_with_end, write_texts
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.rows import read_rows
from unmask.tasks.task import Task
from unmask.training.batches import t5_loss
from unmask.training.loop import Batch, Loss

#: Tokens of sources and candidates that are scored together, a source counted once for each of its candidates.
SCORED_TOKENS = 32_768


class T5TaskModel:
    """T5 with a task.

    Attributes:
        labels: all answers there are, of a kind that has a set of them; kept in config.json as `id2label`.
        label_smoothing: share of a token's probability that is spread over the vocabulary.
    """

    smooths: ClassVar[bool] = True
    label_smoothing: float = 0.0

    def __init__(
        self,
        task: Task,
        model: T5ForConditionalGeneration,
        tokenizer: AnyT5Tokenizer,
        device: torch.device,
        labels: Sequence[str] = (),
    ) -> None:
        self.task, self.tokenizer, self.device = task, tokenizer, device
        self.model, self.labels = model, tuple(labels)
        self._check_words()

    @classmethod
    def load(
        cls,
        task: Task,
        directory: Path,
        *,
        rows: Sequence[Row] | None = None,
        fresh_weights: bool = False,
        device: torch.device,
        dtype: str | None = None,
    ) -> Self:
        """Args:
        rows: training rows, which decide the labels. None: the model has learnt a task; the labels are those that the
            task names, or else the model's, or else those of the task's training file.

        Raises:
            UserError: no labels can be found; a label that the vocabulary cannot write.
        """
        model = T5ForConditionalGeneration.from_pretrained(directory, device=device, dtype=dtype)
        if fresh_weights:
            model.initialise()
        labels = _labels(task, model.config.labels, rows, directory)
        if rows is not None and labels:
            model.config = replace(model.config, labels=labels)
        return cls(task, model, load_tokenizer(directory), device, labels)

    def _check_words(self) -> None:
        words = self.task.its_kind.words(self.task, self.labels)
        decoded = self.tokenizer.batch_decode(self.tokenizer.encode_batch(words), skip_special_tokens=True)
        for word, found in zip(words, decoded, strict=True):
            if " ".join(word.split()) != found.strip():
                raise UserError(
                    f"task {self.task.name!r}: the vocabulary cannot write the label {word!r} (it makes {found!r} of "
                    f"it): give it other words by `label_words`"
                )

    def examples(self, rows: Sequence[Row]) -> Pairs:
        kind = self.task.its_kind
        return Pairs(
            self.sources(rows),
            self._encode([kind.target_text(self.task, row) for row in rows], self.task.max_target_length),
        )

    def sources(self, rows: Sequence[Row]) -> list[list[int]]:
        """The ids that are read for each row."""
        kind = self.task.its_kind
        return self._encode([kind.source_text(self.task, row) for row in rows], self.task.max_source_length)

    def _encode(self, texts: Sequence[str], limit: int) -> list[list[int]]:
        return encode_with_end(self.tokenizer, texts, limit)

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        return t5_loss(self.model, batch, self.device, whole, label_smoothing=self.label_smoothing)

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        kind = self.task.its_kind
        candidates = [kind.candidates(self.task, row, self.labels) for row in rows]
        chosen = [one for one in candidates if one is not None]
        if len(chosen) == len(rows):
            return self._choose(rows, chosen)
        written = write_texts(
            self.model,
            self.tokenizer,
            [kind.source_text(self.task, row) for row in rows],
            max_new_tokens=self.task.max_target_length,
            max_source_length=self.task.max_source_length,
        )
        return [self.answer(row, text) for row, text in zip(rows, written, strict=True)]

    def writes(self, rows: Sequence[Row]) -> bool:
        """Whether the answers to rows are written, not chosen from candidates."""
        kind = self.task.its_kind
        return any(kind.candidates(self.task, row, self.labels) is None for row in rows)

    def answer(self, row: Row, text: str) -> Prediction:
        """What a text that was written for a row stands for."""
        return Prediction(self.task.its_kind.answer(self.task, row, text, self.labels))

    def _choose(self, rows: Sequence[Row], candidates: Sequence[Mapping[str, str]]) -> list[Prediction]:
        """The likeliest candidate of each row, with its share of the probability of all."""
        sources = self.sources(rows)
        targets = [self._encode(list(some.values()), self.task.max_target_length) for some in candidates]
        found = [Prediction("")] * len(rows)
        for places in self._batches(sources, targets):
            most = max(len(targets[place]) for place in places)
            # As many targets for each source: a row that has fewer repeats its first, which is not looked at.
            padded = [
                target
                for place in places
                for target in [*targets[place], *[targets[place][0]] * (most - len(targets[place]))]
            ]
            ids = [torch.tensor(sources[place]) for place in places]
            lengths = torch.tensor([len(row) for row in ids])
            batch = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)
            mask = (torch.arange(batch.shape[1]) < lengths[:, None]).to(self.device)
            with torch.inference_mode():
                scores = self.model.score(batch, padded, mask).view(len(places), most).cpu()
            for place, row in zip(places, scores, strict=True):
                shares = row[: len(targets[place])].softmax(0)
                best = int(shares.argmax())
                found[place] = Prediction(list(candidates[place])[best], float(shares[best]))
        return found

    @staticmethod
    def _batches(
        sources: Sequence[Sequence[int]], targets: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[int]]:
        lengths = [
            len(some) * (len(source) + max(map(len, some)))
            for source, some in zip(sources, targets, strict=True)
        ]
        return list(batches_by_length(lengths, SCORED_TOKENS))

    def save_pretrained(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)


def _labels(
    task: Task, of_model: tuple[str, ...], rows: Sequence[Row] | None, directory: Path
) -> tuple[str, ...]:
    kind = task.its_kind
    if not kind.closed:
        return ()
    if rows is not None:
        return kind.labels(task, rows)
    if named := kind.named_labels(task):
        return named
    if of_model != T5Config.labels:
        return of_model
    if task.train is None and task.range is None:
        raise UserError(
            f"{directory} does not say which answers there are, and task {task.name!r} has no train file: "
            "name them in the task, by `labels`, `label_words` or `range`"
        )
    return kind.labels(task, read_rows(task, "train") if task.train else ())
