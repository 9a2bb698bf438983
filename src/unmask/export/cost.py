"""What a model in low precision costs against the float32 one, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000


@dataclass(frozen=True)
class Sample:
    """What to measure on.

    Attributes:
        sources: a text for each row.
        targets: T5: what should be written for it; a classifier: its label; None: not known.
        seconds: ELECTRA: the second text of each row, where a row is a pair of texts.
    """

    sources: Sequence[str]
    targets: Sequence[str] | None = None
    seconds: Sequence[str] | None = None


@dataclass(frozen=True)
class LossChange:
    """A mean loss, and how it differs from float32's on the same rows, with the 95 % paired bootstrap interval."""

    loss: float
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """A model beside the float32 one.

    Attributes:
        name: what it is called in the report.
        loss: in nats, a target token (T5) or a text (a classifier); None: no targets.
        identical: the share of outputs that are float32's: texts (T5), predictions (ELECTRA).
        chrf: T5: of its texts against float32's, 0 to 100.
        target_chrf: T5: of its texts against the targets.
        logits: ELECTRA: the size of the logits' change over theirs.
    """

    name: str
    loss: LossChange | None
    identical: float
    chrf: float | None = None
    target_chrf: float | None = None
    logits: float | None = None


@dataclass(frozen=True)
class Difference:
    """A text that comes out otherwise than in float32."""

    source: str
    float32: str
    written: str
    target: str


class Subject(Protocol):
    """A model directory with what its model is measured on: a family's part of the work."""

    @property
    def unit(self) -> str:
        """What the loss is a mean over."""

    @property
    def units(self) -> int:
        """How many of those there are; 0 without targets."""

    @property
    def rows(self) -> int:
        """Rows to measure on; 0: there is no sample."""

    def load(self, dtype: str) -> Any:
        """The model, a `PretrainedModel`."""

    def watch(self, model: Any) -> None:
        """Let the rows pass through the model's linear layers, each called as a module."""

    def measure(self, model: Any) -> Any:
        """What the model makes of the rows, as it would be used."""

    def cost(self, name: str, measured: Any, exact: Any) -> Cost:
        """How that differs from what the float32 model made of them."""

    def differences(self, measured: Any, exact: Any) -> list[Difference]:
        """Where texts differ."""

    def save_tokenizer(self, directory: Path) -> None: ...


def loss_change(
    losses: NDArray[np.float64], exact: NDArray[np.float64], units: NDArray[np.int64]
) -> LossChange:
    """Args:
    losses, exact: (rows,) sums of losses, of a model and of the float32 one.
    units: (rows,) what they are sums over.
    """
    change = losses - exact
    # The same draws each time: the same rows give the same report.
    draws = np.random.default_rng(0).integers(0, len(units), (_RESAMPLES, len(units)))
    low, high = np.quantile(change[draws].sum(1) / units[draws].sum(1), [0.025, 0.975])
    total = units.sum()
    return LossChange(float(losses.sum() / total), float(change.sum() / total), float(low), float(high))
