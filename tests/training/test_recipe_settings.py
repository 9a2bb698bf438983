"""What a recipe refuses of batches that grow and of checkpoints that are averaged."""

from __future__ import annotations

from typing import Any

import pytest

from unmask.errors import UserError
from unmask.training.recipe import PretrainRecipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial_batch_size": 4}, "give both, or leave both out"),
        ({"batch_warmup_steps": 4}, "give both, or leave both out"),
        ({"initial_batch_size": 33, "batch_warmup_steps": 4}, "at most batch_size, which is 32"),
        (
            {"initial_batch_size": 4, "batch_warmup_steps": 4, "batch_tokens": 100},
            "at most batch_size, which is None",
        ),
        ({"average_checkpoints": 3}, "keep_checkpoints of as many or more"),
        ({"average_checkpoints": 2, "ema_decay": 0.9}, "no ema_decay"),
        ({"average_checkpoints": 2, "checkpoint_every": 0}, "needs checkpoint_every"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PretrainRecipe.load("t5-tiny", changes)


def test_taken() -> None:
    changes = {"initial_batch_size": 4, "batch_warmup_steps": 10, "average_checkpoints": 2}
    assert PretrainRecipe.load("t5-tiny", changes).initial_batch_size == 4
