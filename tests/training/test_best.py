"""The best weights of a run, the end of one that gets no better, and both over restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import toys

from unmask.training.best import best_evaluation
from unmask.training.loop import train
from unmask.training.metrics import read_metrics
from unmask.training.stopping import Interrupted


def scores_of(
    model: torch.nn.Module, scores: Sequence[float], log: Path
) -> Callable[[], Mapping[str, float]]:
    """The n-th evaluation of a run gives the n-th score: how many there were is in its log."""

    def evaluate() -> Mapping[str, float]:
        assert not model.training
        before = sum(line["kind"] == "evaluation" for line in read_metrics(log)) if log.exists() else 0
        return {"score": scores[before]}

    return evaluate


def run(directory: Path, scores: Sequence[float], **changes: Any) -> tuple[Sequence[torch.Tensor], list[int]]:
    """The weights at the end, and the steps that were made."""
    model, seen = toys.Toy(), list[int]()
    settings = toys.settings(**({"judge": "score", "evaluate_every": 1} | changes))
    evaluate = scores_of(model, scores, directory / "metrics.jsonl")
    train(
        model, toys.batches(), toys.loss_of(model, seen), settings, directory, label="toy", evaluate=evaluate
    )
    return toys.weights(model), seen


def weights_after(steps: int, directory: Path) -> Sequence[torch.Tensor]:
    model = toys.Toy()
    # The same schedule, of which only the first steps are made.
    settings = toys.settings(schedule="constant", steps=steps)
    train(model, toys.batches(), toys.loss_of(model), settings, directory, label="toy")
    return toys.weights(model)


@pytest.mark.parametrize(
    ("scores", "best"),
    [([1, 2, 3, 4], 4), ([1, 3, 2, 2], 2), ([4, 1, 4, 2], 1), ([float("nan"), 1, float("nan"), 0], 2)],
)
def test_the_best_weights_are_left(scores: list[float], best: int, tmp_path: Path) -> None:
    left, _ = run(tmp_path / "judged", scores, steps=4, schedule="constant")
    expected = weights_after(best, tmp_path / "plain")
    assert all(torch.equal(one, other) for one, other in zip(left, expected, strict=True))
    line = best_evaluation(read_metrics(tmp_path / "judged" / "metrics.jsonl"), "score")
    assert line is not None
    assert line["step"] == best


@pytest.mark.parametrize(("patience", "steps"), [(0, 6), (1, 2), (2, 5), (3, 6)])
def test_patience(patience: int, steps: int, tmp_path: Path) -> None:
    _, seen = run(tmp_path, [5, 4, 6, 3, 2, 7], steps=6, patience=patience)
    assert seen == list(range(steps))


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_stopped_and_continued(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [5, 6, 4, 3, 9]
    whole, seen = run(tmp_path / "whole", scores, steps=5, patience=2)
    assert seen == [0, 1, 2, 3]
    # Stopped while the checkpoint behind step `stop` is the newest.
    import unmask.training.loop as loop

    made = list[int]()
    real = loop._step

    def step(*arguments: Any) -> Any:
        if len(made) == stop:
            raise Interrupted
        made.append(1)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_step", step)
        try:
            run(tmp_path / "part", scores, steps=5, patience=2)
        except Interrupted:
            assert stop < 4
    left, rest = run(tmp_path / "part", scores, steps=5, patience=2)
    assert rest == list(range(stop, 4)), "a run that had ended makes no further step"
    assert all(torch.equal(one, other) for one, other in zip(left, whole, strict=True))


def test_frozen_weights_are_not_kept(tmp_path: Path) -> None:
    from safetensors import safe_open

    model = toys.Toy()
    model.one.bias.requires_grad_(False)
    scores: Iterator[float] = iter([1.0, 2.0])
    settings = toys.settings(steps=2, judge="score", evaluate_every=1)
    train(
        model,
        toys.batches(),
        toys.loss_of(model),
        settings,
        tmp_path,
        label="toy",
        evaluate=lambda: {"score": next(scores)},
    )
    with safe_open(tmp_path / "best.safetensors", "pt") as file:
        assert set(file.keys()) == {"layers.0.weight", "layers.1.bias"}
