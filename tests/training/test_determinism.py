"""Deterministic operations, as far as a machine without a GPU can show them."""

from __future__ import annotations

import os
import time

import pytest
import torch

from unmask.training.determinism import ROUNDS, deterministic_operations, prepare_determinism


def test_on_a_gpu_its_cost_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now, made, waits = [0.0], [], []

    def passes() -> None:
        made.append(torch.are_deterministic_algorithms_enabled())
        now[0] += 3.0 if made[-1] else 2.0

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    with deterministic_operations(torch.device("cuda"), passes):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert made == [False] * ROUNDS + [True] * ROUNDS
    assert len(waits) == 4 * ROUNDS
    assert caplog.messages == ["--deterministic: a step's passes take 1.50 times as long"]


def test_on_a_cpu_it_says_that_nothing_is_to_do(caplog: pytest.LogCaptureFixture) -> None:
    made: list[None] = []
    with deterministic_operations(torch.device("cpu"), lambda: made.append(None)):
        assert not torch.are_deterministic_algorithms_enabled()
    assert not made
    assert caplog.messages == ["--deterministic: on this device every run is; nothing is changed"]


def test_what_cublas_needs_is_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    prepare_determinism()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    prepare_determinism()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
