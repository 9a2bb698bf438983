"""What a meter reads: rates over training time alone, and the machine's peak."""

from __future__ import annotations

import time

import pytest
import torch

from unmask.training import meter
from unmask.training.meter import Meter, in_words, matrix_peak, peak_memory, with_prefix

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 1 GFLOP/s."""
    monkeypatch.setattr(meter, "matrix_peak", lambda device, precision: 1e9)


def test_rates_are_over_the_time_that_was_not_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    read = Meter(CPU, "float32")
    read.add(100, 4_000_000_000)
    now[0] = 5.0
    with read.paused():
        now[0] = 1000.0
    now[0] = 1005.0
    values = read.read()
    assert values["tokens_per_second"] == 10
    assert values["flops_per_second"] == 4e8
    assert values["share_of_peak"] == pytest.approx(0.4)
    now[0] = 1006.0
    read.add(7, None)
    assert read.read() == {"tokens_per_second": 7, "memory_mib": pytest.approx(peak_memory(CPU) / 2**20)}


def test_several_processes_have_several_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    read = Meter(CPU, "float32", processes=4)
    read.add(100, 2_000_000_000)
    now[0] = 1.0
    values = read.read()
    assert values["flops_per_second"] == 2e9
    assert values["share_of_peak"] == pytest.approx(0.5)


def test_memory_is_what_the_process_held() -> None:
    before = peak_memory(CPU)
    held = torch.ones(64 * 2**20 // 4 + int(before) // 4)
    assert peak_memory(CPU) - before > 32 * 2**20
    del held
    assert 2**20 < before < 2**40


def test_the_peak_is_at_least_what_a_product_of_now_does() -> None:
    a = torch.ones(1024, 1024)
    start = time.perf_counter()
    a @ a
    assert matrix_peak("cpu", "float32") > 0.05 * 2 * 1024**3 / (time.perf_counter() - start)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.0, "12 "), (999.9, "1 k"), (1.23e9, "1.23 G"), (4.5e14, "450 T"), (2e21, "2,000 E")],
)
def test_numbers_with_a_prefix(value: float, text: str) -> None:
    assert with_prefix(value) == text


def test_in_words() -> None:
    values = {
        "tokens_per_second": 1234.5,
        "flops_per_second": 2.5e11,
        "share_of_peak": 0.31,
        "memory_mib": 812.3,
    }
    assert in_words(values) == "1,234 tokens/s  250 GFLOP/s (31% of the peak)  812 MiB"
