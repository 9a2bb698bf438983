"""Several processes against one: the same losses, the same weights, checkpoints for any number of them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from several import TOKENIZERS, alone, on_ranks, runs

from unmask.errors import UserError
from unmask.training.parallel import check_parallel

Chosen = tuple[str, dict[str, Any], dict[str, Any]]

KINDS = [(family, parallel) for family in ("t5", "electra") for parallel in ("ddp", "fsdp")]


def losses(lines: Sequence[dict[str, Any]], kind: str = "training") -> list[list[float]]:
    """Each line's losses in nats, without accuracies, which are numbers of hits in float32."""
    return [
        [value for name, value in sorted(line.items()) if name.endswith("loss")]
        for line in lines
        if line["kind"] == kind
    ]


def skips(lines: Sequence[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(line["step"], line["message"]) for line in lines if line["kind"] == "skipped"]


def assert_near(one: Any, other: Any, limit: float) -> None:
    """The losses of two runs, in training and of held-out text, and their weights."""
    for kind in ("training", "evaluation"):
        first, second = losses(one[0], kind), losses(other[0], kind)
        assert len(first) == len(second) > 0
        worst = max(abs(a - b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
        assert worst < limit, (kind, worst)
    assert one[1].keys() == other[1].keys()
    assert max(float((one[1][name] - other[1][name]).abs().max()) for name in one[1]) < limit


SOME: list[Chosen] = [
    ("t5", {"steps": 6, "evaluate_every": 3, "log_every": 2}, {"parallel": "fsdp", "not_finite_at": 2}),
    (
        "electra",
        {"steps": 6, "evaluate_every": 4, "log_every": 2},
        {"parallel": "ddp", "accumulate": 2, "checkpoint_activations": True, "not_finite_at": 2},
    ),
    (
        "t5",
        {"steps": 6, "evaluate_every": 3, "optimiser": "adafactor"},
        {"parallel": "fsdp", "checkpoint_activations": True},
    ),
]


def test_two_ranks_make_the_run_of_one(data: Path, tmp_path: Path) -> None:
    """Dropout, samples, a moving average, clipped gradients, layers that run again; seven texts a batch.

    In two of them a step is skipped; in the second that is learnt of in the step behind.
    """
    plain: list[Chosen] = [
        (family, changes, options | {"checkpoint_activations": False}) for family, changes, options in SOME
    ]
    one = alone(data, tmp_path / "one", plain)
    two, silent = on_ranks(2, runs, data, tmp_path / "two", SOME)
    for expected, found in zip(one, two, strict=True):
        assert_near(expected, found, 1e-9)
        assert skips(expected[0]) == skips(found[0])
    assert [skips(lines) for lines, _ in two] == [[(3, "the loss")], [(3, "the loss")], []]
    assert all(not weights for _, weights in silent), "the first rank alone has the weights"


@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_step_in_parts_is_the_step(family: str, data: Path, tmp_path: Path) -> None:
    """Accumulation: also in more passes than a batch has texts."""
    one, three, nine = alone(
        data, tmp_path, [(family, {"steps": 5}, {"accumulate": parts}) for parts in (1, 3, 9)]
    )
    assert_near(one, three, 1e-9)
    assert_near(one, nine, 1e-9)


def test_more_ranks_than_texts(data: Path, tmp_path: Path) -> None:
    chosen: list[Chosen] = [
        ("electra", {"steps": 3, "batch_size": 1}, {"parallel": "fsdp"}),
        ("t5", {"steps": 3, "batch_size": 1}, {"parallel": "ddp"}),
    ]
    one = alone(data, tmp_path / "one", chosen)
    two = on_ranks(2, runs, data, tmp_path / "two", chosen)[0]
    for expected, found in zip(one, two, strict=True):
        assert_near(expected, found, 1e-9)


CHECKPOINTED = {"steps": 8, "checkpoint_every": 1, "evaluate_every": 4}


def stopped_and_continued(
    data: Path, tmp_path: Path, counts: Sequence[int], kinds: Sequence[tuple[str, Any]]
) -> dict[int, list[Any]]:
    """Runs of two ranks that are broken off before the sixth step and continued by other numbers of ranks."""
    begun = [(family, CHECKPOINTED, {"parallel": parallel, "stop_at": 5}) for family, parallel in kinds]
    on_ranks(2, runs, data, tmp_path / "begun", begun)
    ended = {}
    for count in counts:
        place = tmp_path / f"continued on {count}"
        shutil.copytree(tmp_path / "begun", place)
        rest = [(family, CHECKPOINTED, {"parallel": parallel}) for family, parallel in kinds]
        ended[count] = alone(data, place, rest) if count == 1 else on_ranks(count, runs, data, place, rest)[0]
    return ended


def test_two_ranks_continue_to_the_same_bits_and_one_rank_goes_on(data: Path, tmp_path: Path) -> None:
    kinds = [("t5", "fsdp"), ("electra", "ddp")]
    ended = stopped_and_continued(data, tmp_path, (1, 2), kinds)
    whole = [(family, CHECKPOINTED, {"parallel": parallel}) for family, parallel in kinds]
    for never, again, one in zip(
        on_ranks(2, runs, data, tmp_path / "never", whole)[0], ended[2], ended[1], strict=True
    ):
        assert all(torch.equal(never[1][name], again[1][name]) for name in never[1])
        assert losses(never[0]) == losses(again[0])
        assert_near(never, one, 1e-9)


def test_muon_says_so_before_the_run() -> None:
    check_parallel("ddp", "muon")
    check_parallel("fsdp", "adafactor")
    with pytest.raises(UserError, match="muon needs whole matrices and cannot run on FSDP's shards"):
        check_parallel("fsdp", "muon")


# --- the fuller ones ------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("family", "parallel"), KINDS)
def test_fifty_steps_in_float64(family: str, parallel: str, count: int, data: Path, tmp_path: Path) -> None:
    chosen: list[Chosen] = [(family, {}, {"parallel": parallel})]
    (one,) = alone(data, tmp_path / "one", chosen)
    (found,) = on_ranks(count, runs, data, tmp_path / "several", chosen)[0]
    assert len(losses(one[0])) == 50
    assert_near(one, found, 1e-9)


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("family", "parallel"), KINDS)
def test_fifty_steps_in_float32(family: str, parallel: str, count: int, data: Path, tmp_path: Path) -> None:
    """With the generator's samples held fixed: one that flips makes another batch."""
    chosen: list[Chosen] = [
        (family, {}, {"parallel": parallel, "kind": torch.float32, "fixed_samples": True})
    ]
    (one,) = alone(data, tmp_path / "one", chosen)
    (found,) = on_ranks(count, runs, data, tmp_path / "several", chosen)[0]
    first, second = losses(one[0]), losses(found[0])
    assert len(first) == len(second) == 50
    for a, b in zip(first[0], second[0], strict=True):
        assert math.isclose(a, b, rel_tol=0, abs_tol=1e-5)
    for a, b in zip(first[49], second[49], strict=True):
        assert math.isclose(a, b, rel_tol=1e-3)


@pytest.mark.long
def test_a_checkpoint_of_two_ranks_on_one_and_on_four(data: Path, tmp_path: Path) -> None:
    ended = stopped_and_continued(data, tmp_path, (1, 4), KINDS)
    whole = [(family, CHECKPOINTED, {}) for family, _ in KINDS]
    for number, never in enumerate(alone(data, tmp_path / "never", whole)):
        for count in (1, 4):
            assert_near(never, ended[count][number], 1e-9)


@pytest.mark.long
def test_four_ranks_continue_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    whole: list[Chosen] = [(family, CHECKPOINTED, {"parallel": parallel}) for family, parallel in KINDS]
    begun: list[Chosen] = [(family, changes, options | {"stop_at": 5}) for family, changes, options in whole]
    never = on_ranks(4, runs, data, tmp_path / "never", whole)[0]
    on_ranks(4, runs, data, tmp_path / "begun", begun)
    for one, again in zip(never, on_ranks(4, runs, data, tmp_path / "begun", whole)[0], strict=True):
        assert all(torch.equal(one[1][name], again[1][name]) for name in one[1])
