"""Examples of a task for fine-tuning: pairs of texts, texts with labels. Their tokens fit in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from unmask.data.ragged import Batch, Rows, ranges
from unmask.errors import UserError
from unmask.objectives.masked_diffusion import draw_noise


class _Alike:
    """Examples that are the same in every epoch, and given to the model as they are: the stream shuffles them."""

    size: int

    def __len__(self) -> int:
        return self.size

    def plan(self, rng: np.random.Generator) -> Self:
        del rng
        return self

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        del rng, number
        return batch


class Pairs(_Alike):
    """Inputs and the targets that a model is to write for them, special tokens included.

    A batch: "inputs" (total,) and "targets" (total,) int32, "input_lengths" and "target_lengths" (batch,).

    Raises:
        UserError: no examples, one without tokens, or different numbers of inputs and targets.
    """

    def __init__(self, inputs: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> None:
        self.size = len(inputs)
        self._inputs = _checked_rows(inputs, "inputs", self.size)
        self._targets = _checked_rows(targets, "targets", self.size)

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        return self._inputs.lengths[examples] + self._targets.lengths[examples]

    def fetch(self, examples: np.ndarray) -> Batch:
        inputs, input_lengths = self._inputs.take(examples)
        targets, target_lengths = self._targets.take(examples)
        return {
            "inputs": inputs,
            "input_lengths": input_lengths,
            "targets": targets,
            "target_lengths": target_lengths,
        }


#: Share of the examples that teach how long an answer is; of the others the length is known.
LENGTH_SHARE = 1 / 8


class MaskedAnswers:
    """Sources and the answers behind them: p(length | source), and p(answer | source, length) by masked diffusion.

    Of most examples, the answer's tokens are masked at a noise level of their own (`objectives.masked_diffusion`),
    and the [SEP] behind them is in sight. Of an eighth of them, others in each epoch, and of every empty answer, the
    [SEP]s reach up to the last of a fixed number of places, and all these are masked: they teach the length. Both
    are what decoding asks for (`unmask.electra.answers`).

    A batch: "tokens", "token_types" (0 for the source, 1 for the answer) and "masked" (what the generator is shown:
    the source as it is), all (total,) int32; "lengths" (batch,) int32; "answers" (m,) int64, the places in "tokens"
    that can be masked; "drawn" (n,) int64, sorted, those of them that are, and "weights" (n,) float32, what each
    counts.

    Args:
        sources: token ids, special ones included.
        answers: for each the answer's, without special ones, fewer than `places`.
        places: of an answer whose length is to be learnt.
        mask_id, sep_id: [MASK] and [SEP].

    Raises:
        UserError: no examples, a source without tokens, or different numbers of sources and answers.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        *,
        places: int,
        mask_id: int,
        sep_id: int,
    ) -> None:
        self.size = len(sources)
        self._sources = _checked_rows(sources, "sources", self.size)
        self._answers = _checked_rows([[*ids, sep_id] for ids in answers], "answers", self.size)
        self._places, self._mask_id, self._sep_id = places, mask_id, sep_id

    def plan(self, rng: np.random.Generator) -> _PlannedAnswers:
        asked = self._answers.lengths == 1
        asked[rng.permutation(self.size)[: math.ceil(LENGTH_SHARE * self.size)]] = True
        return _PlannedAnswers(self._sources, self._answers, asked, self._places, self._sep_id)

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        del number
        kinds, lengths = batch["kinds"], batch["lengths"]
        noise = draw_noise(kinds == NOISED, lengths, rng=rng)
        asked = np.flatnonzero(kinds == ASKED)
        drawn = np.concatenate([noise.drawn, asked])
        order = np.argsort(drawn)
        masked = batch["tokens"].copy()
        masked[drawn] = self._mask_id
        return {
            "tokens": batch["tokens"],
            "lengths": lengths,
            "token_types": (kinds != SOURCE).astype(np.int32),
            "masked": masked,
            "answers": np.flatnonzero((kinds == NOISED) | (kinds == ASKED)),
            "drawn": drawn[order],
            "weights": np.concatenate([noise.weights, np.ones(len(asked), np.float32)])[order],
        }


#: What a token of an example is: of the source; the [SEP] of a known length; to be noised; masked for the length.
SOURCE, END, NOISED, ASKED = range(4)


@dataclass(frozen=True, eq=False)
class _PlannedAnswers:
    """An epoch of `MaskedAnswers`; `asked` (size,) bool says which examples teach the length."""

    sources: Rows
    answers: Rows
    asked: np.ndarray
    places: int
    sep_id: int

    def __len__(self) -> int:
        return len(self.asked)

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        behind = np.where(self.asked[examples], self.places, self.answers.lengths[examples])
        return self.sources.lengths[examples] + behind

    def fetch(self, examples: np.ndarray) -> Batch:
        """The tokens, and "kinds" (total,) int32, what each of them is."""
        sources, source_lengths = self.sources.take(examples)
        answers, answer_lengths = self.answers.take(examples)
        lengths = self.lengths(examples).astype(np.int32)
        starts = np.cumsum(lengths) - lengths
        tokens = np.full(lengths.sum(), self.sep_id, np.int32)
        tokens[ranges(starts, source_lengths)] = sources
        tokens[ranges(starts + source_lengths, answer_lengths)] = answers
        kinds = np.repeat(np.where(self.asked[examples], ASKED, NOISED).astype(np.int32), lengths)
        kinds[ranges(starts, source_lengths)] = SOURCE
        kinds[(starts + lengths - 1)[~self.asked[examples]]] = END
        return {"tokens": tokens, "lengths": lengths, "kinds": kinds}


class Labelled(_Alike):
    """Texts with one label each, special tokens included.

    A batch: "inputs" and "token_types" (total,) int32, "lengths" (batch,) int32, "labels" (batch,): int64
    classes, or float32 scores where the labels are floats; (batch, n) where each has n of them.

    Args:
        inputs: token ids of each text, or of each pair of texts.
        labels: one for each: a class, a score, or so many of these (a span's two ends).
        token_types: the segment of each token; 0 everywhere if not given.

    Raises:
        UserError: no examples, one without tokens, or columns of different lengths.
    """

    def __init__(
        self,
        inputs: Sequence[Sequence[int]],
        labels: Sequence[int] | Sequence[float] | Sequence[Sequence[int]] | Sequence[Sequence[float]],
        *,
        token_types: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.size = len(inputs)
        self._inputs = _checked_rows(inputs, "inputs", self.size)
        if len(labels) != self.size:
            raise UserError(f"{self.size} inputs and {len(labels)} labels: give one label for each input")
        values = np.asarray(labels)
        self._labels = values.astype(np.float32 if values.dtype.kind == "f" else np.int64)
        types = [[0] * len(row) for row in inputs] if token_types is None else token_types
        self._token_types = _checked_rows(types, "token types", self.size)
        unequal = np.flatnonzero(self._token_types.lengths != self._inputs.lengths)
        if len(unequal):
            raise UserError(f"example {unequal[0]} has a different number of tokens and of token types")

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        return self._inputs.lengths[examples]

    def fetch(self, examples: np.ndarray) -> Batch:
        inputs, lengths = self._inputs.take(examples)
        return {
            "inputs": inputs,
            "lengths": lengths,
            "token_types": self._token_types.take(examples)[0],
            "labels": self._labels[examples],
        }


class LabelledTokens(_Alike):
    """Texts with a label for each token, special tokens included.

    A batch: "inputs", "token_types" (zeros) and "token_labels" (total,) int32, "lengths" (batch,) int32.

    Args:
        inputs: token ids of each text.
        labels: for each as many, -100 on a token without one.

    Raises:
        UserError: no examples, one without tokens, or with another number of labels.
    """

    def __init__(self, inputs: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> None:
        self.size = len(inputs)
        self._inputs = _checked_rows(inputs, "inputs", self.size)
        self._labels = _checked_rows(labels, "labels", self.size)
        unequal = np.flatnonzero(self._labels.lengths != self._inputs.lengths)
        if len(unequal):
            raise UserError(f"example {unequal[0]} has a different number of tokens and of labels")

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        return self._inputs.lengths[examples]

    def fetch(self, examples: np.ndarray) -> Batch:
        inputs, lengths = self._inputs.take(examples)
        return {
            "inputs": inputs,
            "lengths": lengths,
            "token_types": np.zeros_like(inputs),
            "token_labels": self._labels.take(examples)[0],
        }


class Choices(_Alike):
    """Several texts an example, one of which is right, special tokens included.

    A batch: "inputs" and "token_types" (total,) int32, "lengths" (batch,) int32, tokens of all of an example's texts;
    "choice_lengths" (batch, most texts of any example) int32, of each of them, 0 where there are fewer; "labels"
    (batch,) int64.

    Args:
        inputs: token ids of each text of each example.
        token_types: as `inputs`, the segment of each token.
        labels: of each example, the number of the right text.

    Raises:
        UserError: no examples, one without tokens, or columns of different lengths.
    """

    def __init__(
        self,
        inputs: Sequence[Sequence[Sequence[int]]],
        token_types: Sequence[Sequence[Sequence[int]]],
        labels: Sequence[int],
    ) -> None:
        self.size = len(inputs)
        if len(labels) != self.size:
            raise UserError(f"{self.size} inputs and {len(labels)} labels: give one label for each input")
        self._labels = np.asarray(labels, np.int64)
        self._counts = np.fromiter(map(len, inputs), np.int64, self.size)
        self._starts = np.cumsum(self._counts) - self._counts
        texts = [text for example in inputs for text in example]
        self._inputs = _checked_rows(texts, "inputs", len(texts))
        types = [text for example in token_types for text in example]
        self._token_types = _checked_rows(types, "token types", len(texts))
        self._lengths = np.zeros((self.size, int(self._counts.max(initial=0))), np.int32)
        for example, (start, count) in enumerate(zip(self._starts, self._counts, strict=True)):
            self._lengths[example, :count] = self._inputs.lengths[start : start + count]

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        return self._lengths[examples].sum(1, dtype=np.int64)

    def fetch(self, examples: np.ndarray) -> Batch:
        texts = ranges(self._starts[examples], self._counts[examples])
        inputs, _ = self._inputs.take(texts)
        return {
            "inputs": inputs,
            "lengths": self.lengths(examples).astype(np.int32),
            "token_types": self._token_types.take(texts)[0],
            "choice_lengths": self._lengths[examples],
            "labels": self._labels[examples],
        }


class Taught(_Alike):
    """Examples of another source, each with what a teacher's head gave for it.

    A batch: the source's, and "teacher" (decisions, n) float32, those of its examples one behind the other.

    Args:
        source: of the examples.
        logits: (all decisions, n) float32, in the order of the examples.
        counts: (examples,) of each example, how many of them are its own.

    Raises:
        UserError: not as many counts as examples, or not as many rows of logits as the counts say.
    """

    def __init__(
        self, source: Labelled | LabelledTokens | Choices, logits: np.ndarray, counts: np.ndarray
    ) -> None:
        self.size = source.size
        if len(counts) != self.size or int(counts.sum()) != len(logits):
            raise UserError(
                f"a teacher decided {len(logits)} times for {len(counts)} examples, and there are {self.size}"
            )
        self._source, self._logits, self._counts = source, logits, counts
        self._starts = np.cumsum(counts) - counts

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        return self._source.lengths(examples)

    def fetch(self, examples: np.ndarray) -> Batch:
        of = ranges(self._starts[examples], self._counts[examples])
        return self._source.fetch(examples) | {"teacher": self._logits[of]}


def _checked_rows(rows: Sequence[Sequence[int]], name: str, count: int) -> Rows:
    if not count:
        raise UserError("there are no examples")
    if len(rows) != count:
        raise UserError(f"{count} inputs and {len(rows)} {name}: give one for each input")
    table = Rows(rows)
    without = np.flatnonzero(table.lengths == 0)
    if len(without):
        raise UserError(f"example {without[0]} has no tokens in its {name}")
    return table
