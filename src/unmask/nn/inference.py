"""What engines for inference share: texts sorted by length, and packed weights that follow their model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim.optimizer import register_optimizer_step_post_hook

from unmask.nn.ragged import Layout


@dataclass(frozen=True, slots=True)
class Group:
    """Texts of one length, side by side in a sorted stream.

    Attributes:
        first: where the first of them begins, in tokens.
        texts: how many.
        length: of each, in tokens.
    """

    first: int
    texts: int
    length: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.texts * self.length)


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a sorted stream.

    Attributes:
        rows: its tokens.
        groups: of its texts; `first` counts from the run's own first token.
    """

    rows: slice
    groups: list[Group]


@dataclass(frozen=True, slots=True)
class ByLength:
    """A packed stream sorted by the texts' lengths.

    Attributes:
        tokens: (total,) int64, where each token of the sorted stream is taken from; None: it stays.
        texts: the number in the batch of each sorted text.
        groups: in the sorted stream's order.
    """

    tokens: Tensor | None
    texts: list[int]
    groups: list[Group]

    @staticmethod
    def of(layout: Layout) -> ByLength:
        lengths = layout.lengths
        texts = sorted(range(layout.batch), key=lengths.__getitem__)
        groups, first = [], 0
        for length, same in groupby(texts, key=lengths.__getitem__):
            groups.append(Group(first, len(list(same)), length))
            first += groups[-1].texts * length
        if texts == list(range(layout.batch)):
            return ByLength(None, texts, groups)
        by_text = torch.arange(layout.total, device=layout.device).split(list(lengths))
        return ByLength(torch.cat([by_text[text] for text in texts]), texts, groups)

    def pieces(self, tokens: int) -> Iterator[Piece]:
        """The stream in runs of whole texts, each of about so many tokens, so that a run's work stays in cache."""
        groups: list[Group] = []
        begin = used = 0
        for group in self.groups:
            left = group.texts
            while left:
                taken = min(left, max(0 if used else 1, (tokens - used) // group.length))
                if not taken:
                    yield Piece(slice(begin, begin + used), groups)
                    begin, used, groups = begin + used, 0, []
                    continue
                groups.append(Group(used, taken, group.length))
                used += taken * group.length
                left -= taken
        yield Piece(slice(begin, begin + used), groups)


_Version = tuple[tuple[int, int], ...]
_Module = TypeVar("_Module", bound=nn.Module)
_Engine = TypeVar("_Engine")


class Engines(Generic[_Module, _Engine]):
    """One engine a module, made anew when any of its weights changed since.

    PyTorch counts the changes of a tensor; only writes through `.data` go uncounted, and those of its fused
    optimisers, which are counted here.
    """

    def __init__(self, make: Callable[[_Module], _Engine]) -> None:
        self._make = make
        self._made: WeakKeyDictionary[_Module, tuple[_Version, _Engine]] = WeakKeyDictionary()

    def of(self, module: _Module) -> _Engine:
        version = _version(module)
        found = self._made.get(module)
        if found is None or found[0] != version:
            found = (version, self._make(module))
            self._made[module] = found
        return found[1]


def _version(module: nn.Module) -> _Version:
    tensors = (*module.parameters(), *module.buffers())
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def _count_fused_step(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """PyTorch's fused kernels write to the weights without counting it: an engine would stay as it was."""
    for group in optimiser.param_groups:
        if group.get("fused"):
            increment_version([parameter for parameter in group["params"] if not parameter.is_inference()])


register_optimizer_step_post_hook(_count_fused_step)
