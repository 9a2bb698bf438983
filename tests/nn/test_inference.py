"""Engines follow the weights of their model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unmask.nn.inference import Engines


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}])
def test_an_engine_is_made_anew_after_any_optimisers_step(options: dict[str, bool]) -> None:
    model = nn.Linear(4, 3)
    engines = Engines(lambda module: module.weight.detach().clone())
    before = engines.of(model)
    assert engines.of(model) is before
    model(torch.ones(2, 4)).sum().backward()
    torch.optim.AdamW(model.parameters(), **options).step()
    assert torch.equal(engines.of(model), model.weight)
    assert not torch.equal(before, model.weight)
