"""The rules by which a run says what is wrong with it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import Toy, batches, loss_of, settings

from unmask.nn.sums import Sums
from unmask.training.health import WINDOW, Health, grace_steps
from unmask.training.loop import Loss, train
from unmask.training.metrics import read_metrics

HEALTH = Health(grace=100, vocab_size=1000)
WELL = {
    "generator_loss": 3.0,
    "discriminator_accuracy": 0.9,
    "discriminator_recall": 0.3,
    "replaced_of_drawn": 0.6,
}


def log(count: int, first: int = 110, **values: float) -> list[dict[str, Any]]:
    """So many training lines, 10 steps apart, with held-out ones between them."""
    lines: list[dict[str, Any]] = []
    for step in range(first, first + 10 * count, 10):
        lines.append({"step": step, "kind": "evaluation", "discriminator_recall": 0.0})
        lines.append({"step": step, "kind": "training", **WELL, **values})
    return lines


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"discriminator_recall": 0.004, "discriminator_accuracy": 0.912},
            r"the discriminator has collapsed: it finds 0\.4% of the replaced tokens \(mean of steps 110 to 200\); "
            r"its accuracy of 91\.2% is that of calling every token original",
        ),
        ({"replaced_of_drawn": 0.15}, r"the generator has run away: only 15\.0% of the drawn tokens"),
        ({"generator_loss": 7.5}, r"the generator has diverged: its loss of 7\.50 nats is above the 6\.91"),
    ],
)
def test_an_ailment_is_said_once_and_its_end_too(values: dict[str, float], message: str) -> None:
    lines = log(WINDOW, **values)
    assert HEALTH.diagnose(lines[:-2]) == [], "nine lines are not enough"
    (found,) = HEALTH.diagnose(lines)
    assert re.match(message, found), found
    more = lines + log(1, 210, **values)
    assert HEALTH.diagnose(more) == [], "it is known by now"
    well = [*more, *log(WINDOW, 220)]
    said = [text for end in range(len(more) + 2, len(well) + 1, 2) for text in HEALTH.diagnose(well[:end])]
    assert len(said) == 1
    assert said[0].endswith(": no longer so")


def test_a_healthy_run_and_the_limits() -> None:
    assert HEALTH.diagnose(log(30)) == []
    edge = {"discriminator_recall": 0.0101, "replaced_of_drawn": 0.201, "generator_loss": math.log(1000)}
    assert HEALTH.diagnose(log(WINDOW, **edge)) == []


def test_a_run_is_not_judged_before_its_grace_is_over() -> None:
    ill = log(WINDOW + 3, first=80, discriminator_recall=0.0)
    said = [bool(HEALTH.diagnose(ill[:end])) for end in range(2, len(ill) + 1, 2)]
    assert said == [False] * 12 + [True], "the first line after step 100 is the fourth"
    assert grace_steps(1_000_000, 10_000) == 10_000
    assert grace_steps(1_000_000, 20_000) == 20_000
    assert grace_steps(400, 40) == 80


def test_values_that_are_not_there() -> None:
    """Nothing was replaced: recall is 0/0. Masked LM has no discriminator at all."""
    assert HEALTH.diagnose(log(WINDOW, discriminator_recall=math.nan)) == []
    mixed = log(WINDOW, discriminator_recall=0.0)
    mixed[1]["discriminator_recall"] = math.nan
    assert len(HEALTH.diagnose(mixed)) == 1
    bare = [{"step": step, "kind": "training", "loss": 1.0} for step in range(110, 310, 10)]
    assert HEALTH.diagnose(bare) == []


@dataclass(frozen=True)
class Recalled(Sums):
    """A step that went well, but for its recall."""

    recall: Tensor

    def metrics(self) -> dict[str, Tensor]:
        well = {name: self.recall.new_tensor(value) for name, value in WELL.items()}
        return well | {"discriminator_recall": self.recall}


def test_the_loop_writes_and_prints_what_ails_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Toy()
    plain = loss_of(model)

    def collapsing(batch: Any, step: int, whole: Any) -> Loss:
        loss = plain(batch, step, whole)
        recall = 0.5 if step < 5 else 0.0
        return Loss(loss.total, Recalled(torch.tensor(recall)), loss.tokens)

    chosen = settings(steps=20, checkpoint_every=0)
    train(model, batches(), collapsing, chosen, tmp_path, label="toy", diagnose=Health(4, 1000).diagnose)
    warnings = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "warning"]
    assert [line["step"] for line in warnings] == [15]
    assert warnings[0]["message"].startswith("the discriminator has collapsed")
    printed = capsys.readouterr().err
    assert "toy  warning: step 15: the discriminator has collapsed" in printed
