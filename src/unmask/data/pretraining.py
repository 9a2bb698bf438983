"""Examples of a corpus for pre-training: T5's chunks, ELECTRA's segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np

from unmask.data.ragged import Batch, permuted, ranges
from unmask.data.shards import Split
from unmask.errors import UserError
from unmask.objectives.masked_diffusion import draw_noise
from unmask.objectives.ramps import Ramp
from unmask.objectives.replaced_tokens import draw_positions, mask
from unmask.objectives.text_to_text import Denoiser, denoise

#: Whole documents of about so many lines are cut into examples together: what that takes, in memory, does not depend
#: on the corpus.
LINES_AT_ONCE = 1 << 18


class TextToText:
    """T5: the documents in a random order, concatenated, cut into pieces, each made into inputs and targets.

    As in t5 (`span_corruption`: `tokenize` without `</s>`, `reduce_concat_tokens`, `split_tokens`, `denoise`,
    `append_eos_after_trim`) nothing stands between two documents, and `</s>` comes after corruption. The
    reference concatenates 128 documents at a time (for prefix LM and deshuffling none) and takes at most 65,536
    tokens of one; here all are concatenated and no token is left out: the last piece of an epoch is as short as
    it comes. Of several denoisers, each piece gets one drawn by their rates, and is as long as that one takes.

    A batch: "inputs" (total,) and "targets" (total,) int32, "input_lengths" and "target_lengths" (batch,).

    Args:
        split: tokens to read.
        denoisers: what makes the examples, see `unmask.objectives.text_to_text.denoisers`.

    Attributes:
        size: pieces in each epoch; None with several denoisers, where it differs.

    Raises:
        UserError: an empty split.
    """

    def __init__(self, split: Split, denoisers: Sequence[Denoiser]) -> None:
        _refuse_empty(split)
        self.size = -(-split.tokens // denoisers[0].chunk) if len(denoisers) == 1 else None
        self._split = split
        self._denoisers = tuple(denoisers)

    def plan(self, rng: np.random.Generator) -> _Chunks:
        order = permuted(self._split.documents, rng)
        if self.size:
            return _Chunks(self._split, self._denoisers[0].chunk, order)
        return _MixedChunks(self._split, self._denoisers, order, rng)

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        del number
        lengths = batch["lengths"].astype(np.int64)
        return denoise(batch["tokens"], lengths, batch["kinds"], self._denoisers, rng=rng)._asdict()


class _Chunks:
    """The documents in one order, concatenated and cut."""

    def __init__(self, split: Split, chunk: int, order: np.ndarray) -> None:
        self._split = split
        self._chunk = chunk
        self._order = order
        self._ends = np.diff(split.document_starts)[order]
        np.cumsum(self._ends, out=self._ends)

    def __len__(self) -> int:
        return -(-self._split.tokens // self._chunk)

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        begin, end = self._begin_end(examples)
        return end - begin

    def _begin_end(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each lies in the concatenated documents."""
        begin = examples * self._chunk
        return begin, np.minimum(begin + self._chunk, self._split.tokens)

    def fetch(self, examples: np.ndarray) -> Batch:
        begin, end = self._begin_end(examples)
        # A chunk is the end of one document, some whole ones, and the beginning of another.
        first = np.searchsorted(self._ends, begin, side="right")
        count = np.searchsorted(self._ends, end, side="left") - first + 1
        documents = ranges(first, count)
        document_begin = np.where(documents > 0, self._ends[documents - 1], 0)
        piece_begin = np.maximum(np.repeat(begin, count), document_begin)
        piece_end = np.minimum(np.repeat(end, count), self._ends[documents])
        document_starts = self._split.line_starts[self._split.document_lines[self._order[documents]]]
        starts = document_starts + piece_begin - document_begin
        return {
            "tokens": self._split.gather(starts, piece_end - piece_begin),
            "lengths": (end - begin).astype(np.int32),
            "kinds": self._kinds(examples),
        }

    def _kinds(self, examples: np.ndarray) -> np.ndarray:
        """The number of the denoiser that each is for."""
        return np.zeros(len(examples), np.int8)


class _MixedChunks(_Chunks):
    """Pieces for denoisers that are drawn one after the other, each piece as long as its own takes."""

    def __init__(
        self, split: Split, denoisers: Sequence[Denoiser], order: np.ndarray, rng: np.random.Generator
    ) -> None:
        lengths = np.array([denoiser.chunk for denoiser in denoisers])
        super().__init__(split, int(lengths.max()), order)
        rates = np.array([denoiser.rate for denoiser in denoisers])
        most = -(-split.tokens // int(lengths.min()))
        kinds = rng.choice(len(denoisers), size=most, p=rates / rates.sum()).astype(np.int8)
        ends = np.cumsum(lengths[kinds])
        count = int(np.searchsorted(ends, split.tokens, side="left")) + 1
        self._bounds = np.minimum(np.concatenate([[0], ends[:count]]), split.tokens)
        self._drawn = kinds[:count]

    def __len__(self) -> int:
        return len(self._drawn)

    def _begin_end(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._bounds[examples], self._bounds[examples + 1]

    def _kinds(self, examples: np.ndarray) -> np.ndarray:
        return self._drawn[examples]


@dataclass(frozen=True, eq=False)
class LineSegments:
    """ELECTRA's examples: [CLS] A [SEP] or [CLS] A [SEP] B [SEP] made of whole lines.

    They are built as in electra's `build_pretraining_dataset.py`, with these choices of ours:
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
        keep_overflow: see above.

    Raises:
        UserError: an empty split, shards without lines, or a setting that means nothing.
    """

    split: Split
    _: KW_ONLY
    max_length: int
    cls_id: int
    sep_id: int
    mask_id: int
    special_ids: Sequence[int]
    keep_overflow: bool = True

    def __post_init__(self) -> None:
        _refuse_empty(self.split)
        if not self.split.by_line:
            raise UserError(
                "ELECTRA's examples are made of lines and these shards hold whole documents: "
                "pack the corpus by line"
            )
        if self.max_length < 5:
            raise UserError(f"max_length is {self.max_length}: replaced-token detection needs at least 5")

    @property
    def size(self) -> None:
        return None

    def plan(self, rng: np.random.Generator) -> _Segments:
        cuts = (
            _cut_segments(self.split.line_starts, starts, ends, self.max_length, self.keep_overflow, rng)
            for starts, ends in _document_parts(self.split)
        )
        return _Segments(self.split, _on_disk(cuts), self.cls_id, self.sep_id)


@dataclass(frozen=True, eq=False)
class ReplacedTokens(LineSegments):
    """ELECTRA's examples, positions drawn for the generator (`unmask.objectives.replaced_tokens`).

    Args:
        mask_rate: share of an example's tokens that is drawn; a ramp makes it a function of the batch's number.

    Raises:
        UserError: also a rate that is not between 0 and 1.
    """

    _: KW_ONLY
    mask_rate: float | Ramp = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in (self._rates.start, self._rates.end):
            if not 0 < rate < 1:
                raise UserError(f"mask rate is {rate}: give a number between 0 and 1, such as 0.15")

    @property
    def _rates(self) -> Ramp:
        return self.mask_rate if isinstance(self.mask_rate, Ramp) else Ramp.constant(self.mask_rate)

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        drawn = draw_positions(
            batch["tokens"],
            batch["lengths"],
            special_ids=np.asarray(self.special_ids, np.int32),
            max_length=self.max_length,
            rate=self._rates.at(number),
            rng=rng,
        )
        masked = mask(batch["tokens"], drawn, mask_id=self.mask_id, rng=rng)
        return {**batch, "drawn": drawn, "masked": masked}


class MaskedDiffusion(LineSegments):
    """ELECTRA's examples, each masked at a noise level of its own (`unmask.objectives.masked_diffusion`).

    Every drawn place is shown as [MASK]. A batch has "weights" besides, (n,) float32: what each drawn place
    counts in the loss.
    """

    def finish(self, batch: Batch, rng: np.random.Generator, number: int) -> Batch:
        del number
        noise = draw_noise(~np.isin(batch["tokens"], self.special_ids), batch["lengths"], rng=rng)
        masked = batch["tokens"].copy()
        masked[noise.drawn] = self.mask_id
        return {**batch, "drawn": noise.drawn, "weights": noise.weights, "masked": masked}


class _Cuts(NamedTuple):
    """Where examples lie among a split's tokens: A at start, B (maybe empty) behind it. Each (examples,)."""

    start: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[_Cuts]) -> _Cuts:
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def at(self, examples: np.ndarray) -> _Cuts:
        return _Cuts(*(column[examples] for column in self))


def _on_disk(parts: Iterable[_Cuts]) -> _Cuts:
    """The parts one after another, mapped from a temporary file: the table of a large corpus is large."""
    columns = [("start", np.int64), ("first", np.int32), ("second", np.int32)]
    with TemporaryFile() as file:
        for part in parts:
            np.rec.fromarrays(part, dtype=columns).tofile(file)
        table = np.memmap(file, columns, "r").view(np.ndarray)
    return _Cuts(*(table[name] for name, _ in columns))


def _document_parts(split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Where documents, or the parts of very long ones, begin and end, in tokens; some documents at a time."""
    firsts = np.searchsorted(split.document_lines, np.arange(0, split.lines, LINES_AT_ONCE))
    bounds = np.unique([*firsts, split.documents])
    for first, stop in pairwise(bounds.tolist()):
        lines = split.document_lines[first : stop + 1]
        line_starts = split.line_starts[lines[0] : lines[-1]]
        document = np.repeat(np.arange(stop - first), np.diff(lines))
        part = (line_starts - split.line_starts[lines[:-1]][document]) >> 16
        begins = np.ones(len(line_starts), bool)
        begins[1:] = (np.diff(document) != 0) | (np.diff(part) != 0)
        starts = line_starts[begins]
        yield starts, np.append(starts[1:], split.line_starts[lines[-1]])


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
    together = _Cuts.joined(found)
    return together.at(np.argsort(together.start))


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
    return _Cuts(start, first.astype(np.int32), second.astype(np.int32)), stop


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
        _, first, second = self._cuts.at(examples)
        return first + second + np.where(second > 0, 3, 2)

    def fetch(self, examples: np.ndarray) -> Batch:
        start, first, second = self._cuts.at(examples)
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
