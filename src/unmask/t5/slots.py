"""Which row of a batch is where in the decoder's caches.

Each row sits in a *slot*. The slots of rows that share a source are neighbours, a *group*: cross-attention's keys
and values exist once a group. Rows that end or that a beam search reorders move between slots as little as
possible: a row that lives on stays where it is, and only what must be is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class Slots:
    """The rows of a batch.

    Attributes:
        rows: how many there are.
        groups: sources.
        copies: slots of each group.
        lengths: tokens that each row was fed.
        slots: the slot of each row; None: row i is in slot i, and every slot has a row.
    """

    rows: int
    groups: int
    copies: int
    lengths: list[int]
    slots: list[int] | None = None

    @property
    def used(self) -> int:
        """Slots, with a row or without."""
        return self.groups * self.copies


@dataclass(frozen=True)
class Rearrangement:
    """What `select` does: slots of the rows, and which slots and groups are copied where, in any order."""

    slots: list[int]
    groups: int
    copies: int
    slot_moves: list[tuple[int, int]]
    group_moves: list[tuple[int, int]]


def rearrange(old: list[int], copies: int) -> Rearrangement:
    """Give each row a slot near its old one.

    A row stays where it is; repeats of it take free slots of its group; groups beyond the number that is left
    move into the places of groups that ended. No target of a move is a source of another.

    Args:
        old: the slot that each row comes from, repeats allowed.
        copies: slots of each group until now; more are made where one group has more rows.
    """
    members: dict[int, list[int]] = {}
    for slot in old:
        members.setdefault(slot // copies, []).append(slot % copies)
    wider = max(copies, max(len(offsets) for offsets in members.values()))
    groups = len(members)
    empty = [group for group in range(groups) if group not in members]
    place = {group: group if group < groups else empty.pop() for group in members}
    free = {group: [o for o in range(wider) if o not in offsets] for group, offsets in members.items()}
    taken: set[int] = set()
    slots, moves = [], []
    for slot in old:
        group, offset = divmod(slot, copies)
        target = free[group].pop(0) if slot in taken else offset
        taken.add(slot)
        slots.append(place[group] * wider + target)
        moves.append((group * wider + offset, slots[-1]))
    return Rearrangement(
        slots,
        groups,
        wider,
        [(source, target) for source, target in moves if source != target],
        [(source, target) for source, target in place.items() if source != target],
    )


def with_room(cache: Tensor, dim: int, used: int, shape: Sequence[int], fill: float = 0.0) -> Tensor:
    """A cache that has room for a shape: itself, or a larger copy.

    Args:
        cache: its places along `dim` are slots or groups, of which the first `used` hold something.
        shape: the least size of each dimension. Where there are too few places, twice as many are made, so that
            rows which come one after another do not each copy the cache.
        fill: what fresh room holds.
    """
    if all(have >= want for have, want in zip(cache.shape, shape, strict=True)):
        return cache
    sizes = [max(have, want) for have, want in zip(cache.shape, shape, strict=True)]
    if sizes[dim] > cache.shape[dim]:
        sizes[dim] = max(sizes[dim], 2 * cache.shape[dim])
    wide = cache.new_full(sizes, fill)
    kept = cache.narrow(dim, 0, used)
    wide[tuple(slice(size) for size in kept.shape)] = kept
    return wide


def put_behind(cache: Tensor, other: Tensor, dim: int, used: int, coming: int, fill: float = 0.0) -> Tensor:
    """The first `coming` places of another cache behind the first `used` of this one: itself, or a larger copy."""
    fresh = other.narrow(dim, 0, coming)
    shape = list(fresh.shape)
    shape[dim] = used + coming
    cache = with_room(cache, dim, used, shape, fill)
    place = cache.narrow(dim, used, coming).fill_(fill)
    place[tuple(slice(size) for size in fresh.shape)] = fresh
    return cache
