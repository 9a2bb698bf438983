"""Examples of a corpus for pre-training: T5's chunks, ELECTRA's segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unmask.data.ragged import Batch, ranges
from unmask.data.shards import Split
from unmask.errors import UserError
from unmask.objectives.masked_diffusion import draw_noise
from unmask.objectives.ramps import Ramp
from unmask.objectives.replaced_tokens import draw_positions, mask
from unmask.objectives.span_corruption import chunk_length, corrupt, noise_counts, random_spans_noise_mask


class SpanCorruption:
    """T5: the documents in a random order, concatenated, cut into chunks, spans of each chunk cut out.

    As in t5 (`span_corruption`: `tokenize` without `</s>`, `reduce_concat_tokens`, `split_tokens`, `denoise`,
    `append_eos_after_trim`) nothing stands between two documents, and `</s>` comes after corruption. The
    reference concatenates 128 documents at a time and takes at most 65,536 tokens of one; here all are
    concatenated and no token is left out: the last chunk of an epoch is as short as it comes.

    A batch: "inputs" (total,) and "targets" (total,) int32, "input_lengths" and "target_lengths" (batch,).

    Args:
        split: tokens to read.
        inputs_length: how many tokens the inputs of a chunk fill, `</s>` included.
        sentinel_ids: in order of use, `<extra_id_0>` first.
        eos_id: `</s>`.
        noise_density: share of a chunk's tokens that is cut out.
        mean_span: mean length of the spans that are cut out, in tokens.

    Attributes:
        size: chunks in each epoch.
        chunk: length of a chunk in tokens.
        targets_length: how many tokens the targets of a chunk fill, `</s>` included.

    Raises:
        UserError: an empty split, a setting that means nothing, or too few sentinels for it.
    """

    def __init__(
        self,
        split: Split,
        *,
        inputs_length: int,
        sentinel_ids: Sequence[int],
        eos_id: int,
        noise_density: float = 0.15,
        mean_span: float = 3.0,
    ) -> None:
        _refuse_empty(split)
        self.chunk, self.targets_length = chunk_length(inputs_length, noise_density, mean_span)
        spans = noise_counts(self.chunk, noise_density, mean_span)[1]
        if spans > len(sentinel_ids):
            raise UserError(
                f"inputs of {inputs_length} tokens at noise density {noise_density} in spans of {mean_span} "
                f"need {spans} sentinels and the vocabulary has {len(sentinel_ids)}: use shorter inputs, "
                "a lower density or longer spans"
            )
        self.size = -(-split.tokens // self.chunk)
        self._split = split
        self._sentinel_ids = np.asarray(sentinel_ids, np.int32)
        self._eos_id = eos_id
        self._noise = noise_density, mean_span

    def plan(self, rng: np.random.Generator) -> _Chunks:
        return _Chunks(self._split, self.chunk, rng.permutation(self._split.documents))

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        del number
        lengths = batch["lengths"]
        ends = np.cumsum(lengths)
        noise = np.empty(len(batch["tokens"]), bool)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            masks = random_spans_noise_mask(len(rows), int(length), *self._noise, rng)
            noise[ranges(ends[rows] - length, lengths[rows])] = masks.ravel()
        corrupted = corrupt(
            batch["tokens"], noise, lengths, sentinel_ids=self._sentinel_ids, eos_id=self._eos_id
        )
        return corrupted._asdict()


class _Chunks:
    """The documents in one order, concatenated and cut."""

    def __init__(self, split: Split, chunk: int, order: np.ndarray) -> None:
        starts = split.document_starts
        self._split = split
        self._chunk = chunk
        self._starts = starts[:-1][order]
        self._ends = np.cumsum(np.diff(starts)[order])

    def __len__(self) -> int:
        return -(-self._split.tokens // self._chunk)

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        return np.minimum(self._chunk, self._split.tokens - examples * self._chunk)

    def fetch(self, examples: np.ndarray) -> Batch:
        begin = examples * self._chunk
        end = np.minimum(begin + self._chunk, self._split.tokens)
        # A chunk is the end of one document, some whole ones, and the beginning of another.
        first = np.searchsorted(self._ends, begin, side="right")
        count = np.searchsorted(self._ends, end, side="left") - first + 1
        documents = ranges(first, count)
        document_begin = np.where(documents > 0, self._ends[documents - 1], 0)
        piece_begin = np.maximum(np.repeat(begin, count), document_begin)
        piece_end = np.minimum(np.repeat(end, count), self._ends[documents])
        starts = self._starts[documents] + piece_begin - document_begin
        return {
            "tokens": self._split.gather(starts, piece_end - piece_begin),
            "lengths": (end - begin).astype(np.int32),
        }


class ReplacedTokens:
    """ELECTRA: [CLS] A [SEP] or [CLS] A [SEP] B [SEP] made of whole lines, positions drawn for the generator.

    Examples are built as in electra's `build_pretraining_dataset.py`, with these choices of ours:
    they are cut anew each epoch (the reference cuts them once); the text stays in order (there, a short line
    can slip into A when B has begun); and what does not fit begins the next example instead of being dropped
    (`keep_overflow=False` drops it: at length 128 that loses 40 % of a corpus of novels in paragraphs).
    Documents longer than 65,536 tokens are cut there, at a line, so that planning them is quick.

    A batch: "tokens", "token_types" (0 for [CLS] A [SEP], 1 for B [SEP]) and "masked" (what the generator is
    shown), all (total,) int32; "lengths" (batch,) int32; "drawn" (n,) int64, sorted positions in "tokens".

    Args:
        split: tokens to read; its shards must have been written by line.
        max_length: most tokens of an example, special ones included.
        cls_id, sep_id, mask_id: [CLS], [SEP], [MASK].
        special_ids: ids that are never drawn: those three and [PAD].
        mask_rate: share of an example's tokens that is drawn; a ramp makes it a function of the batch's number.
        keep_overflow: see above.

    Raises:
        UserError: an empty split, shards without lines, or a setting that means nothing.
    """

    size = None

    def __init__(
        self,
        split: Split,
        *,
        max_length: int,
        cls_id: int,
        sep_id: int,
        mask_id: int,
        special_ids: Sequence[int],
        mask_rate: float | Ramp = 0.15,
        keep_overflow: bool = True,
    ) -> None:
        _refuse_empty(split)
        if not split.by_line:
            raise UserError(
                "ELECTRA's examples are made of lines and these shards hold whole documents: "
                "pack the corpus by line"
            )
        if max_length < 5:
            raise UserError(f"max_length is {max_length}: replaced-token detection needs at least 5")
        rates = mask_rate if isinstance(mask_rate, Ramp) else Ramp.constant(mask_rate)
        for rate in (rates.start, rates.end):
            if not 0 < rate < 1:
                raise UserError(f"mask rate is {rate}: give a number between 0 and 1, such as 0.15")
        self._split = split
        self._max_length = max_length
        self._ids = cls_id, sep_id, mask_id
        self._special_ids = np.asarray(special_ids, np.int32)
        self._mask_rate = rates
        self._keep_overflow = keep_overflow
        self._parts = _document_parts(split)

    def plan(self, rng: np.random.Generator) -> _Segments:
        cuts = _cut_segments(
            self._split.line_starts, *self._parts, self._max_length, self._keep_overflow, rng
        )
        return _Segments(self._split, cuts, *self._ids[:2])

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        drawn = draw_positions(
            batch["tokens"],
            batch["lengths"],
            special_ids=self._special_ids,
            max_length=self._max_length,
            rate=self._mask_rate.at(number),
            rng=rng,
        )
        return {
            **batch,
            "drawn": drawn,
            "masked": mask(batch["tokens"], drawn, mask_id=self._ids[2], rng=rng),
        }


class MaskedDiffusion(ReplacedTokens):
    """ELECTRA's examples, each masked at a noise level of its own (`unmask.objectives.masked_diffusion`).

    A batch is that of `ReplacedTokens`, every drawn place shown as [MASK], with "weights" (n,) float32: what each
    drawn place counts in the loss.

    Args:
        split, max_length, cls_id, sep_id, mask_id, special_ids: as for `ReplacedTokens`.

    Raises:
        UserError: an empty split, shards without lines, or a length that means nothing.
    """

    def __init__(
        self,
        split: Split,
        *,
        max_length: int,
        cls_id: int,
        sep_id: int,
        mask_id: int,
        special_ids: Sequence[int],
    ) -> None:
        super().__init__(
            split,
            max_length=max_length,
            cls_id=cls_id,
            sep_id=sep_id,
            mask_id=mask_id,
            special_ids=special_ids,
        )

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        del number
        noise = draw_noise(~np.isin(batch["tokens"], self._special_ids), batch["lengths"], rng=rng)
        masked = batch["tokens"].copy()
        masked[noise.drawn] = self._ids[2]
        return {**batch, "drawn": noise.drawn, "weights": noise.weights, "masked": masked}


class _Cuts(NamedTuple):
    """Where examples lie among a split's tokens: A at start, B (maybe empty) behind it. Each (examples,)."""

    start: np.ndarray
    first: np.ndarray
    second: np.ndarray


def _document_parts(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Where documents, or the parts of very long ones, begin and end, in tokens."""
    line_starts = split.line_starts[:-1]
    document = np.repeat(np.arange(split.documents), np.diff(split.document_lines))
    part = (line_starts - split.document_starts[document]) >> 16
    begins = np.ones(len(line_starts), bool)
    begins[1:] = (np.diff(document) != 0) | (np.diff(part) != 0)
    starts = line_starts[begins]
    return starts, np.append(starts[1:], split.tokens)


def _cut_segments(
    line_starts: np.ndarray,
    part_starts: np.ndarray,
    part_ends: np.ndarray,
    max_length: int,
    keep_overflow: bool,
    rng: np.random.Generator,
) -> _Cuts:
    """Cut all documents into examples: the first example of each, then the second of each, and so on."""
    start, end = part_starts, part_ends
    found: list[_Cuts] = []
    while len(start):
        cuts, stop = _cut_next(line_starts, start, end, max_length, rng)
        found.append(cuts)
        start = cuts.start + cuts.first + cuts.second if keep_overflow else stop
        unfinished = start < end
        start, end = start[unfinished], end[unfinished]
    together = _Cuts(*(np.concatenate(column) for column in zip(*found, strict=True)))
    in_order = np.argsort(together.start)
    return _Cuts(*(column[in_order] for column in together))


def _cut_next(
    line_starts: np.ndarray, start: np.ndarray, end: np.ndarray, max_length: int, rng: np.random.Generator
) -> tuple[_Cuts, np.ndarray]:
    """The examples that begin at `start` in documents that end at `end`, and where their last lines end.

    `ExampleBuilder` of `build_pretraining_dataset.py`: lines are taken until they reach the target length,
    which is max_length, or for 5 % uniform from 5 to it. 10 % are one segment. Otherwise A takes its first
    line and then lines while it stays below (target - 3) // 2; the line that would go over it goes to A half
    of the time; the rest is B. Both are cut to what fits beside the special tokens.
    """
    count = len(start)
    line_ends = line_starts[1:]
    is_short, is_single, is_generous = rng.random((3, count)) < [[0.05], [0.1], [0.5]]
    target = np.where(is_short, rng.integers(5, max_length + 1, count), max_length)
    first_target = np.where(is_single, np.iinfo(np.int32).max, (target - 3) // 2)

    def line_end_from(place: np.ndarray) -> np.ndarray:
        """The first end of a line at `place` or after, or the document's."""
        line = np.minimum(np.searchsorted(line_ends, place, side="left"), len(line_ends) - 1)
        return np.minimum(line_ends[line], end)

    stop = line_end_from(start + target)
    # Where the first line that goes over begins: so far, lines fit.
    last_that_fits = line_starts[np.searchsorted(line_ends, start + first_target, side="left")]
    first_end = np.minimum(np.maximum(line_end_from(start + 1), last_that_fits), stop)
    takes_more = is_generous & (first_end - start < first_target)
    first_end = np.where(takes_more, np.minimum(line_end_from(first_end + 1), stop), first_end)
    first = np.minimum(first_end - start, max_length - 2)
    second = np.minimum(stop - first_end, np.maximum(max_length - first - 3, 0))
    return _Cuts(start, first, second), stop


class _Segments:
    """One epoch's examples of ELECTRA."""

    def __init__(self, split: Split, cuts: _Cuts, cls_id: int, sep_id: int) -> None:
        self._split = split
        self._cuts = cuts
        self._cls_id = cls_id
        self._sep_id = sep_id

    def __len__(self) -> int:
        return len(self._cuts.start)

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        _, first, second = (column[examples] for column in self._cuts)
        return first + second + np.where(second > 0, 3, 2)

    def fetch(self, examples: np.ndarray) -> Batch:
        start, first, second = (column[examples] for column in self._cuts)
        first_length = first + 2
        second_length = second + (second > 0)
        lengths = first_length + second_length
        ends = np.cumsum(lengths)
        row_starts = ends - lengths
        tokens = np.full(int(ends[-1]), self._sep_id, np.int32)
        is_text = np.ones(len(tokens), bool)
        is_text[row_starts] = is_text[row_starts + first_length - 1] = is_text[ends - 1] = False
        tokens[row_starts] = self._cls_id
        tokens[is_text] = self._split.gather(start, first + second)
        segments = np.tile(np.array([0, 1], np.int32), len(examples))
        return {
            "tokens": tokens,
            "lengths": lengths.astype(np.int32),
            "token_types": np.repeat(segments, np.stack([first_length, second_length], axis=1).ravel()),
        }


def _refuse_empty(split: Split) -> None:
    if not split.tokens:
        raise UserError(
            f"the {split.name} split is empty: give more documents, or hold out a larger share of them"
            if split.name == "validation"
            else f"the {split.name} split is empty"
        )
