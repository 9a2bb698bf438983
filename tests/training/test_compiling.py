"""What torch.compile makes of layers: nearly the same numbers, one code for all batches, the same bits again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from several import alone, work_of
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import config
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from unmask.errors import UserError
from unmask.training.activations import recomputed_layers
from unmask.training.compiling import check_compiler, compiled_layers
from unmask.training.family import Pretraining

CPU = torch.device("cpu")


def _has_compiler() -> bool:
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


with_compiler = pytest.mark.skipif(not _has_compiler(), reason="needs a C++ compiler")


def gradients(work: Pretraining, step: int) -> dict[str, Tensor]:
    work.model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    work.loss(step).total.backward()
    return {name: each.grad.clone() for name, each in work.model.named_parameters() if each.grad is not None}


@with_compiler
@pytest.mark.parametrize("family", [pytest.param("t5", marks=pytest.mark.long), "electra"])
def test_one_code_for_all_batches(family: str, data: Path) -> None:
    """Dropout included, whose masks are the same; also under layers that run again."""
    torch.compiler.reset()
    work = work_of(family, data)
    plain = [gradients(work, step) for step in range(4)]
    with compiled_layers(work.model):
        compiled = [gradients(work, 0)]
        made = counters["stats"]["unique_graphs"]
        compiled += [gradients(work, step) for step in range(1, 4)]
        with recomputed_layers(work.model):
            again = gradients(work, 3)
        assert counters["stats"]["unique_graphs"] == made > 0
    for before, after in zip(plain, compiled, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            torch.testing.assert_close(after[name], before[name], atol=2e-5, rtol=1e-3)
    assert all(torch.equal(again[name], compiled[3][name]) for name in again)
    assert any(not torch.equal(plain[0][name], compiled[0][name]) for name in plain[0]), "compiled at all"
    assert all(torch.equal(plain[3][name], value) for name, value in gradients(work, 3).items())


@with_compiler
def test_a_continued_run_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"compile": True, "kind": torch.float32}
    changes = {"steps": 5, "checkpoint_every": 1, "evaluate_every": 5}
    torch.compiler.reset()
    ((_, whole),) = alone(data, tmp_path / "whole", [("electra", changes, options)])
    alone(data, tmp_path / "run", [("electra", changes, options | {"stop_at": 3})])
    torch.compiler.reset()
    ((_, again),) = alone(data, tmp_path / "run", [("electra", changes, options)])
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(
        UserError, match=r"--compile needs a C\+\+ compiler, and there is none: install g\+\+"
    ):
        check_compiler(CPU)
