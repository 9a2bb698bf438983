"""What a training step measured, as sums and counts: several steps, or parts of one, become one by addition."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from torch import Tensor


@dataclass(frozen=True)
class Sums:
    """Base of dataclasses whose fields are sums and counts, or None where something was not measured."""

    @abstractmethod
    def metrics(self) -> dict[str, Tensor]:
        """Means for a log, as scalars on the device."""

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several steps as one, at least one: added up in their order. What any did not measure is None."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        return cls(**{name: _added(values) for name, values in columns.items()})

    def out_of(self, **counts: int) -> Self:
        """The same sums beside the counts of a larger batch, of which this is a part: what means are taken over."""
        return replace(self, **counts)

    def of_nothing(self) -> Self:
        """What would have been measured of no text: 0 throughout."""
        return replace(
            self, **{name: None if value is None else value * 0 for name, value in vars(self).items()}
        )


def _added(values: list[Any]) -> Any:
    return None if any(value is None for value in values) else sum(values)
