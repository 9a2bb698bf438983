"""A T5's loss on pairs of texts and what it writes for them, and how that differs between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import UserError
from unmask.export.cost import Cost, Difference, Sample, loss_change
from unmask.nn.losses import CHUNK_ROWS
from unmask.nn.ragged import Layout
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import T5Writer, encode_with_end

#: Tokens of a text that are read, `</s>` included, and of a target that are scored.
LONGEST = 512
#: Pairs whose loss is computed together, of similar length.
BATCH_PAIRS = 16


@dataclass(frozen=True)
class Pairs:
    """Texts and what should be written for them, with their tokens.

    Raises:
        UserError: no pair.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    source_ids: Sequence[Sequence[int]]
    target_ids: Sequence[Sequence[int]]

    @classmethod
    def of(cls, tokenizer: AnyT5Tokenizer, sources: Sequence[str], targets: Sequence[str]) -> Pairs:
        if not sources or len(sources) != len(targets):
            raise UserError(f"{len(sources)} sources and {len(targets)} targets are no sample to measure on")
        ids = [encode_with_end(tokenizer, texts, LONGEST) for texts in (sources, targets)]
        return cls(sources, targets, *ids)


@dataclass(frozen=True, eq=False)
class Measured:
    """What one model makes of the pairs.

    Attributes:
        losses: (pairs,) sums of cross-entropies over a target's tokens, in nats.
        texts: what is written for each source.
    """

    losses: NDArray[np.float64]
    texts: list[str]


class T5Subject:
    """A T5 that writes."""

    unit = "target token"

    def __init__(self, directory: Path, sample: Sample | None) -> None:
        self.directory, self.tokenizer = directory, load_tokenizer(directory)
        self.pairs = None
        if sample is not None:
            if sample.targets is None:
                raise UserError("a T5 is measured on pairs, these rows have no targets: name their column")
            self.pairs = Pairs.of(self.tokenizer, sample.sources, sample.targets)

    @property
    def units(self) -> int:
        return 0 if self.pairs is None else sum(len(ids) for ids in self.pairs.target_ids)

    @property
    def rows(self) -> int:
        return 0 if self.pairs is None else len(self.pairs.sources)

    def load(self, dtype: str) -> T5ForConditionalGeneration:
        return T5ForConditionalGeneration.from_pretrained(self.directory, dtype=dtype)

    def watch(self, model: T5ForConditionalGeneration) -> None:
        losses(model, self._pairs)

    def measure(self, model: T5ForConditionalGeneration) -> Measured:
        return measure(model, self.tokenizer, self._pairs)

    def cost(self, name: str, measured: Measured, exact: Measured) -> Cost:
        return cost(name, measured, exact, self._pairs)

    def differences(self, measured: Measured, exact: Measured) -> list[Difference]:
        pairs = self._pairs
        rows = zip(pairs.sources, exact.texts, measured.texts, pairs.targets, strict=True)
        return [Difference(*row) for row in rows if row[1] != row[2]]

    def save_tokenizer(self, directory: Path) -> None:
        self.tokenizer.save_pretrained(directory)

    @property
    def _pairs(self) -> Pairs:
        assert self.pairs is not None
        return self.pairs


def cost(name: str, measured: Measured, float32: Measured, pairs: Pairs) -> Cost:
    """What a model loses against the float32 one."""
    tokens = np.array([len(ids) for ids in pairs.target_ids])
    same = [a == b for a, b in zip(measured.texts, float32.texts, strict=True)]
    return Cost(
        name,
        loss_change(measured.losses, float32.losses, tokens),
        identical=sum(same) / len(same),
        chrf=_chrf(measured.texts, float32.texts),
        target_chrf=_chrf(measured.texts, pairs.targets),
    )


def _chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().corpus_score(list(texts), [list(references)]).score)


def measure(model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer, pairs: Pairs) -> Measured:
    """Losses, and texts as generation_config.json asks for them, but never drawn."""
    longest = max(len(ids) for ids in pairs.target_ids)
    writer = T5Writer(
        model,
        tokenizer,
        max_source_length=LONGEST,
        max_new_tokens=longest,
        do_sample=False,
        num_return_sequences=1,
    )
    texts = [results[0].text for results in writer.write(pairs.sources)]
    return Measured(losses(model, pairs), texts)


@torch.inference_mode()
def losses(model: T5ForConditionalGeneration, pairs: Pairs) -> NDArray[np.float64]:
    """(pairs,) sums of cross-entropies. Every matrix is multiplied as in decoding, the output's too."""
    found = np.empty(len(pairs.sources))
    order = sorted(range(len(found)), key=lambda row: len(pairs.source_ids[row]))
    for first in range(0, len(order), BATCH_PAIRS):
        rows = order[first : first + BATCH_PAIRS]
        inputs, input_layout = _packed([pairs.source_ids[row] for row in rows], model.device)
        targets, layout = _packed([pairs.target_ids[row] for row in rows], model.device)
        source = model.encode(inputs, input_layout)
        hidden = model.decode(model.shift_right(targets, layout), layout, source, input_layout)
        entropies = torch.cat(
            [
                F.cross_entropy(_logits(model, states).float(), wanted, reduction="none")
                for states, wanted in zip(hidden.split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True)
            ]
        )
        found[rows] = [float(part.sum(dtype=torch.float64)) for part in entropies.split(list(layout.lengths))]
    return found


def _logits(model: T5ForConditionalGeneration, hidden: Tensor) -> Tensor:
    return F.linear(hidden, model.embedding.weight) if model.output is None else model.output(hidden)


def _packed(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Layout]:
    ids = torch.tensor([token for row in rows for token in row], device=device)
    return ids, Layout.of([len(row) for row in rows], device)
