"""The processes of a run: which of them this is, and how they agree.

A run on one process has the ranks `ALONE`, for which everything here is done at once. Several are started by torchrun,
on one machine or on many; what they tell each other here are small things, over gloo, that steps and files depend on.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from unmask.errors import UserError
from unmask.nn.sums import Sums

T = TypeVar("T")

#: How long a rank waits for another inside a step.
PATIENCE = timedelta(minutes=30)
#: How long the others wait for what the first prepares: a corpus may be large.
LONG_PATIENCE = timedelta(days=30)
#: Seconds between two looks at what another rank has said.
_PAUSE = 0.01


class FailedElsewhere(SystemExit):
    """Another rank failed, and says why: this one ends without a word, with its exit code."""


@dataclass(frozen=True)
class Ranks:
    """A process among those of a run.

    Attributes:
        number: this one's, from 0.
        count: how many there are.
    """

    number: int = 0
    count: int = 1
    _patient: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this one speaks for all: it prints, logs and prepares."""
        return self.number == 0

    @property
    def group(self) -> Any:
        """The connections over which they agree; None: torch's own."""
        return self._patient

    def apart(self) -> Ranks:
        """The same ranks over connections of their own, for a thread beside this one; on all ranks, or none."""
        if self.count == 1:
            return self
        return replace(self, _patient=dist.new_group(backend="gloo", timeout=LONG_PATIENCE))

    def any(self, *flags: bool) -> list[bool]:
        """Of each, whether it is so on any rank; all get the same answers."""
        return [number > 0 for number in self._highest(*map(int, flags))]

    def same(self, value: T) -> T:
        """The first rank's value, on all."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._patient)
        return values[0]

    def gathered(self, value: T) -> list[T]:
        """Every rank's value, in their order, on all."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self._patient)
        return values

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, on all."""
        if self.count == 1:
            return tensor
        summed = tensor.detach().clone()
        dist.all_reduce(summed)
        return summed

    def joined(self, parts: Sequence[Sums]) -> Sums:
        """What all ranks measured, as one."""
        if self.count == 1:
            return parts[0].joined(parts)
        own = parts[0].joined(parts)
        names = [name for name, value in vars(own).items() if value is not None]
        device = next((value.device for value in vars(own).values() if torch.is_tensor(value)), "cpu")
        values = [torch.as_tensor(getattr(own, name), device=device).detach().double() for name in names]
        together = self.total(torch.stack(values)).unbind()
        return own.out_of(**dict(zip(names, together, strict=True)))  # type: ignore[arg-type]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that fails on every rank where it fails on one. Ranks must not wait for each other inside it.

        Raises:
            FailedElsewhere: another rank's failed.
        """
        error: BaseException | None = None
        try:
            yield
        except BaseException as caught:
            error = caught
        (code,) = self._highest(_exit_code(error))
        if error is not None:
            raise error
        if code:
            raise FailedElsewhere(code)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """A block that the first rank goes through before the others do: they find what it has made."""
        if not self.is_first:
            with self.together():
                pass
        with self.together():
            yield
        if self.is_first:
            with self.together():
                pass

    def _highest(self, *numbers: int) -> list[int]:
        """Of each, the highest on any rank."""
        if self.count == 1:
            return list(numbers)
        tensor = torch.tensor(numbers)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._patient)
        highest: list[int] = tensor.tolist()
        return highest


ALONE = Ranks()


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError | OSError) else 1


def is_launched() -> bool:
    """Whether torchrun, or something like it, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def local_number() -> int:
    """This process' number among those on its machine: which accelerator is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def fresh_store(store: Store, number: int, count: int) -> Store:
    """A part of a store that has nothing in it from ranks that are dead by now.

    torchrun keeps one store over its restarts (torch 2.13, `dynamic_rendezvous.py`), with the addresses of those that
    it has ended: a rank that is early would connect to them. So the first chooses a name for what they share, and
    offers it to each rank together with what that one has just said of itself.

    Args:
        number, count: this process' number and how many there are.
    """
    own = uuid.uuid4().hex
    if number == 0:
        for other in range(1, count):
            there, offered, taken = (f"unmask/{word}/{other}" for word in ("there", "offered", "taken"))
            while not (store.check([taken]) and store.get(taken).decode() == own):
                store.set(offered, store.get(there).decode() + own)
                time.sleep(_PAUSE)
        return PrefixStore(own, store)
    store.set(f"unmask/there/{number}", own)
    while not (offer := store.get(f"unmask/offered/{number}").decode()).startswith(own):
        time.sleep(_PAUSE)
    name = offer.removeprefix(own)
    store.set(f"unmask/taken/{number}", name)
    return PrefixStore(name, store)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The ranks that torchrun has started, joined for the block; `ALONE` where nothing has.

    Raises:
        UserError: another rank is gone.
    """
    if not is_launched():
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, number, count = next(rendezvous("env://", timeout=PATIENCE))
    dist.init_process_group(
        backend, store=fresh_store(store, number, count), rank=number, world_size=count, timeout=PATIENCE
    )
    try:
        patient = dist.new_group(backend="gloo", timeout=LONG_PATIENCE)
        yield Ranks(dist.get_rank(), dist.get_world_size(), patient)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise UserError(
            f"rank {dist.get_rank()} has lost another rank: torchrun starts all again where it was given "
            f"--max-restarts, else the same command continues the run ({str(error).splitlines()[0]})"
        ) from None
    finally:
        dist.destroy_process_group()
