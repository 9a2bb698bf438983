"""The progress line of long work: rate, losses, time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """A line on standard error; where that is no terminal, a plain line now and then."""

    PLAIN_SECONDS = 15.0

    def __init__(
        self, label: str, done: int, steps: int | None, unit: str = "tokens", *, quiet: bool = False
    ) -> None:
        """Args:
        done: steps that were made before.
        steps: how many there are; None: nobody knows.
        unit: what the rate counts, a second.
        quiet: print nothing.
        """
        self.label, self.done, self.steps, self.unit = label, done, steps, unit
        self.first, self.amount = done, 0
        self.console = Console(stderr=True, quiet=quiet)
        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(label, total=steps, completed=done, values="")

    def __enter__(self) -> Self:
        self.start = self.last_plain = time.perf_counter()
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    @property
    def rate(self) -> float:
        """Units a second since this process began the work."""
        return self.amount / max(1e-9, time.perf_counter() - self.start)

    def advance(self, amount: int, steps: int = 1) -> None:
        """So much of the unit was done, in so many steps."""
        self.done += steps
        self.amount += amount
        self.bar.advance(self.task, steps)

    def skip(self, steps: int) -> None:
        """So many steps were made before: they count as done, not in the rate."""
        self.done += steps
        self.first += steps
        self.bar.reset(self.task, completed=self.done)

    def warn(self, message: str) -> None:
        """Print a warning that stays, above the bar."""
        self.say(f"warning: {message}", style="yellow")

    def say(self, message: str, *, style: str | None = None) -> None:
        """Print a line that stays, above the bar."""
        self.console.print(
            f"{self.label}  {message}", style=style, highlight=False, soft_wrap=True, markup=False
        )

    def show(self, values: Mapping[str, float], rate: str | None = None) -> None:
        """Show the newest values beside the bar.

        Args:
            rate: how fast it goes, in words; None: units a second since the work began.
        """
        text = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in values.items())
        rate = rate or f"{self.rate:,.{0 if self.rate >= 10 else 2}f} {self.unit}/s"
        text = f"{text}  {rate}".lstrip()
        self.bar.update(self.task, values=text)
        now = time.perf_counter()
        if self.bar.disable and (now - self.last_plain >= self.PLAIN_SECONDS or self.done == self.steps):
            self.last_plain = now
            place = f"{self.done}"
            if self.steps is not None:
                left = (now - self.start) / max(1, self.done - self.first) * (self.steps - self.done)
                place, text = f"{self.done}/{self.steps}", f"{text}  {left:.0f} s left"
            self.console.print(f"{self.label}  {place}  {text}", highlight=False, soft_wrap=True)
