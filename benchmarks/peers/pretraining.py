"""What both sides of a timed pre-training share: the job, the clock that stops while weights are written."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.recipe import PretrainRecipe

#: Steps before the clock is started.
START_UP = 4


class Job:
    """What is trained, on what, where and how long."""

    def __init__(self) -> None:
        self.path = Path(sys.argv[1])
        settings = json.loads(self.path.read_text())
        self.settings: dict[str, Any] = settings
        self.device = torch.device(settings["device"])
        if self.device.type == "cuda" and settings["clock"] == "processor":
            raise SystemExit("--clock processor does not see what a GPU does: leave it out")
        torch.set_num_threads(settings["threads"])
        self.seconds: float = settings["seconds"]
        changes: dict[str, Any] = {"precision": "bfloat16", "checkpoint_every": 0, "max_skipped": 1}
        if settings["batch_size"]:
            changes["batch_size"] = settings["batch_size"]
        self.recipe = PretrainRecipe.load(settings["recipe"], changes)
        kind: Any = T5Tokenizer if self.recipe.family == "t5" else ElectraTokenizer
        self.tokenizer: Any = kind.from_pretrained(Path(settings["data"]) / "tokenizer")
        self.shards = Shards.open(settings["data"], self.tokenizer, verify=False)

    @property
    def warmup_share(self) -> float:
        return self.recipe.warmup_steps / self.recipe.steps

    def with_steps(self, steps: int) -> PretrainRecipe:
        """The recipe for so many steps, its warm-up in proportion, its weights written at every point."""
        return replace(
            self.recipe,
            steps=steps,
            warmup_steps=round(self.warmup_share * steps),
            evaluate_every=max(1, steps // self.settings["points"]),
        )

    def new_clock(self) -> Clock:
        return Clock(self.device, of_processor=self.settings["clock"] == "processor")

    def snapshots(self, module: str) -> Path:
        """Where a side writes its weights, a directory for each: its name is the seconds, zero-padded."""
        return self.path.parent / "weights" / module

    def result(self, module: str) -> Path:
        """The file in which a side says what it did, written when it is done."""
        return self.path.with_suffix(f".{module}.json")

    def write(self, module: str, values: dict[str, Any]) -> None:
        cpu = f"CPU, threads: {self.settings['threads']}"
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else cpu
        facts = {
            "torch": torch.__version__,
            "parameters": values.pop("parameters", None),
            "threads": self.settings["threads"],
            "clock": self.settings["clock"],
            "batch size": self.recipe.batch_size,
            "training tokens in the corpus": self.shards.train.tokens,
        }
        self.result(module).write_text(json.dumps(values | {"device": device, "facts": facts}))


class Clock:
    """Seconds of training, on the wall or of the processor, all threads together.

    The device has finished what it was given when the clock is read.
    """

    def __init__(self, device: torch.device, *, of_processor: bool) -> None:
        self._device = device
        self._read = time.process_time if of_processor else time.perf_counter
        self._before = 0.0
        self._since: float | None = None

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return self._read()

    def start(self) -> None:
        self._since = self._now()

    def stop(self) -> None:
        """Does nothing to a clock that was never started."""
        self._before, self._since = self.seconds(), None

    def seconds(self) -> float:
        return self._before if self._since is None else self._before + self._now() - self._since
