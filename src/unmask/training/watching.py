"""What a run says about itself while it goes: the progress line, the metrics log, TensorBoard, warnings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from unmask.training.board import Board
from unmask.training.health import Diagnose
from unmask.training.meter import Meter, in_words
from unmask.training.metrics import MetricsLog
from unmask.training.progress import Progress
from unmask.training.ranks import ALONE, Ranks

#: A sample of what the model does: a "text" for a terminal, and whatever it was made from.
Sample = Mapping[str, Any]


class Watch:
    """The one place where a run's news goes.

    Args:
        label: what the progress line calls this work.
        directory: the run's.
        first, steps: after which step it begins, and how many there are.
        precision: the one that it trains in.
        flops: a batch → floating-point operations of a step on it; None: nobody knows.
        diagnose: see `loop.train`.
        tensorboard: write for TensorBoard too.
        ranks: the processes of the run, of which the first alone prints and writes.

    Raises:
        UserError: TensorBoard is wanted and not installed.
    """

    def __init__(
        self,
        label: str,
        directory: Path,
        first: int,
        steps: int,
        *,
        device: torch.device,
        precision: str,
        flops: Callable[[Any], int] | None = None,
        diagnose: Diagnose | None = None,
        tensorboard: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self._board = Board(directory, first) if tensorboard and ranks.is_first else None
        self.log = MetricsLog(directory / "metrics.jsonl", keep_below=first, written=ranks.is_first)
        self._progress = Progress(label, first, steps, quiet=not ranks.is_first)
        self._meter = Meter(device, precision, ranks.count)
        self._flops = flops
        self._diagnose = diagnose

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._board is not None:
            self._board.close()

    def paused(self) -> AbstractContextManager[None]:
        """What runs inside the block does not count as training time."""
        return self._meter.paused()

    def stepped(self, batch: Any, tokens: int) -> None:
        """A step was made on a batch."""
        self._progress.advance(tokens)
        self._meter.add(tokens, None if self._flops is None else self._flops(batch))

    def trained(self, step: int, values: Mapping[str, float], learning_rate: float) -> None:
        """The measurements of a step that is to be logged; says what ails the run by now."""
        measured = self._meter.read()
        self._write(step, "training", {**values, "learning_rate": learning_rate, **measured})
        self._progress.show(values, in_words(measured))
        for message in self._diagnose(self.log.lines) if self._diagnose is not None else ():
            self._write(step, "warning", {"message": message})
            self._progress.warn(f"step {step}: {message}")

    def evaluated(self, step: int, values: Mapping[str, float], kind: str = "evaluation") -> None:
        """Held-out metrics; of the kind "averaged" where they are of several checkpoints' mean."""
        self._write(step, kind, values)
        whole = {name: value for name, value in values.items() if "/" not in name}
        if whole:
            words = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in whole.items())
            self._progress.say(f"step {step}, {'held-out text' if kind == 'evaluation' else kind}: {words}")

    def sampled(self, step: int, sample: Sample) -> None:
        """What the model does with a held-out text."""
        self._write(step, "sample", sample)
        self._progress.say(f"step {step}: {sample['text']}")

    def skipped(self, step: int, fault: str) -> int:
        """Note a step (from 1) as skipped: how many in a row it makes, also over restarts."""
        before = [line for line in self.log.lines if line["kind"] == "skipped" and line["step"] == step - 1]
        in_a_row = 1 + sum(int(line["in_a_row"]) for line in before)
        self._write(step, "skipped", {"message": fault, "in_a_row": in_a_row})
        self._progress.warn(f"step {step} is skipped: {fault} is not finite")
        return in_a_row

    def ended(self, step: int, reason: str) -> None:
        """The run ends before its last step."""
        self._progress.say(f"ends after step {step}: {reason}")

    def _write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        self.log.write(step, kind, values)
        if self._board is not None:
            self._board.write(step, kind, values)
