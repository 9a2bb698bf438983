"""A text-to-text task for an ELECTRA: the source stays in sight, the target alone is masked and written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch

from unmask import hub
from unmask.data.finetuning import MaskedAnswers
from unmask.electra.diffusion import diffusion_step
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.sharing import share_embeddings
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.generation.batching import batches_by_length
from unmask.generation.refinement import Watch
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.task import Task
from unmask.training.batches import to_layout, to_tensor
from unmask.training.loop import Batch, Loss, step_seed

logger = logging.getLogger("unmask")

#: Weights are trained in this type, also where a directory stores them as int8.
TRAINED = "float32"
#: Tokens that are worked on together when rows are answered.
BATCH_TOKENS = 8192


class ElectraAnswerModel:
    """ELECTRA as a writer: a pair, or a generator alone, fine-tuned by masked diffusion on the answers.

    Embeddings that the halves of a pair share (as they do after `unmask pretrain`) stay shared.

    Attributes:
        seed: of the training's draws.
    """

    def __init__(self, task: Task, model: ElectraForConditionalGeneration, *, seed: int = 0) -> None:
        self.task, self.model, self.seed = task, model, seed
        self.tokenizer = model.tokenizer

    @classmethod
    def for_training(
        cls,
        task: Task,
        directory: Path,
        rows: Sequence[Row],
        *,
        fresh_weights: bool,
        seed: int,
        device: torch.device,
    ) -> Self:
        """A model to be trained; an answer gets as many places as the longest target of the rows needs.

        Raises:
            UserError: no generator in the directory, or answers that leave no room for sources.
        """
        place = directory / GENERATOR if (directory / GENERATOR).is_dir() else directory
        _refuse_without_generator(place)
        generator = ElectraForMaskedLM.from_pretrained(place, device=device, dtype=TRAINED)
        discriminator = None
        if (directory / DISCRIMINATOR).is_dir():
            discriminator = ElectraForPreTraining.from_pretrained(
                directory / DISCRIMINATOR, device=device, dtype=TRAINED
            )
        _share_if_equal(generator, discriminator)
        if fresh_weights:
            for half in (generator, discriminator):
                if half is not None:
                    half.initialise()
        tokenizer = ElectraTokenizer.from_pretrained(directory)
        targets = tokenizer.encode_batch([row.target for row in rows], add_special_tokens=False)
        longest = min(task.max_target_length, max(map(len, targets)) + 1)
        model = ElectraForConditionalGeneration(generator, discriminator, tokenizer, max(2, longest))
        return cls(task, model, seed=seed)

    @classmethod
    def for_prediction(cls, task: Task, directory: Path, *, device: torch.device) -> Self:
        """Raises:
        UserError: the model was not fine-tuned on a text-to-text task.
        """
        model = ElectraForConditionalGeneration.from_pretrained(directory, device=device)
        if model.answer_length is None:
            raise UserError(
                f"{directory} has not learnt to answer: fine-tune it on task {task.name!r} first (unmask finetune)"
            )
        return cls(task, model)

    def examples(self, rows: Sequence[Row]) -> MaskedAnswers:
        assert self.model.answer_length is not None
        targets = self.tokenizer.encode_batch([row.target for row in rows], add_special_tokens=False)
        return MaskedAnswers(
            self._sources(rows),
            [ids[: self.model.answer_length - 1] for ids in targets],
            places=self.model.answer_length,
            mask_id=self.tokenizer.mask_token_id,
            sep_id=self.tokenizer.sep_token_id,
        )

    def _sources(self, rows: Sequence[Row]) -> list[list[int]]:
        """[CLS] source [SEP], cut to what the task reads and to the positions that an answer leaves."""
        assert self.model.answer_length is not None
        room = self.model.positions - self.model.answer_length
        limit = min(self.task.max_source_length, room)
        texts = [self.task.text(row.sources) for row in rows]
        encoded = self.tokenizer.encode_batch(texts)
        cut = sum(len(ids) > limit for ids in encoded)
        if cut and limit == room:
            logger.warning(
                "%d of %d sources are cut to %d tokens: the model has %d positions, answers take %d "
                "(max_target_length)",
                cut,
                len(encoded),
                limit,
                self.model.positions,
                self.model.answer_length,
            )
        return [
            ids if len(ids) <= limit else [*ids[: limit - 1], self.tokenizer.sep_token_id] for ids in encoded
        ]

    def loss(self, batch: Batch, step: int, whole: Batch) -> Loss:
        device = self.model.device
        out = diffusion_step(
            self.model.generator,
            self.model.discriminator,
            to_tensor(batch["tokens"], device),
            to_tensor(batch["masked"], device),
            to_tensor(batch["drawn"], device),
            to_layout(batch, device),
            to_tensor(batch["token_types"], device),
            weights=torch.from_numpy(batch["weights"]).to(device),
            noise_seed=step_seed(self.seed, "sampling", step),
            answers=to_tensor(batch["answers"], device),
        )
        answers, passes = len(whole["answers"]), 1 if self.model.discriminator is None else 2
        total = out.out_of(noisable=answers, judged=answers if passes == 2 else 0).loss()
        return Loss(total, out, passes * len(batch["tokens"]))

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        return [Prediction(text) for text in self.answer(rows)]

    def answer(
        self, rows: Sequence[Row], watch: Watch | None = None, **options: int | float | None
    ) -> list[str]:
        """The answers for rows, in their order.

        Args:
            watch: is told before each pass of the generator; what it raises ends the work.
            options: of `ElectraForConditionalGeneration.generate`, one result each.
        """
        assert self.model.answer_length is not None
        encoded = self._sources(rows)
        answers = [""] * len(encoded)
        lengths = [len(ids) + self.model.answer_length for ids in encoded]
        for places in batches_by_length(lengths, BATCH_TOKENS, copies=int(options.get("candidates") or 1)):
            some = [encoded[place] for place in places]
            written = self.model.generate(some, watch=watch, **options)  # type: ignore[arg-type]
            found = self.tokenizer.batch_decode(written, skip_special_tokens=True)
            for place, text in zip(places, found, strict=True):
                answers[place] = text
        return answers

    def save_pretrained(self, directory: Path) -> None:
        self.model.save_pretrained(directory)


def _refuse_without_generator(directory: Path) -> None:
    alone = (directory / DISCRIMINATOR).is_dir()
    if not alone:
        architectures = hub.read_json(directory / hub.CONFIG).get("architectures") or ()
        alone = ElectraForPreTraining.architecture in architectures
    if alone:
        raise UserError(
            f"{directory} has no generator, and it is the generator that writes: give a pair "
            "(unmask pretrain … --objective masked-diffusion) or a masked LM"
        )


def _share_if_equal(generator: ElectraForMaskedLM, discriminator: ElectraForPreTraining | None) -> None:
    """Two halves that were written with the same embeddings have one set of them again."""
    if discriminator is None:
        return
    one, other = (half.encoder.embeddings.state_dict() for half in (generator, discriminator))
    if all(one[name].shape == other[name].shape and torch.equal(one[name], other[name]) for name in one):
        share_embeddings(generator.encoder, discriminator.encoder, "shared")
