"""Products on panels of weights: exact in whole numbers, near float64 in floats, and each row's bits its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unmask.nn import tiles
from unmask.nn.linear import ACTIVATIONS, quantize
from unmask.nn.tiled import Tiled

pytestmark = pytest.mark.skipif(not tiles.available(), reason="this processor lacks the instructions")

FLOATS = ("float32", "bfloat16", "float16")
KINDS = (*FLOATS, "int8")


def packed(weight: Tensor, kind: str) -> tiles.Panels:
    return tiles.pack_int8(*quantize(weight)) if kind == "int8" else tiles.pack(weight, kind)


def meant(weight: Tensor, kind: str) -> Tensor:
    """What the packed weight stands for, float64."""
    if kind == "int8":
        int8, scale = quantize(weight)
        return int8.double() * scale.double()[:, None]
    return weight.to(getattr(torch, kind)).double()


def rounded(x: Tensor) -> Tensor:
    """Activations as an int8 product sees them, float64."""
    steps = tiles.activation_steps(x.shape[1])
    step = x.double().abs().amax(1, True).clamp(min=1e-30) / steps
    return torch.round(x.double() / step) * step


@pytest.mark.parametrize("kind", KINDS)
@given(
    rows=st.integers(1, 40), half=st.integers(1, 60), outputs=st.integers(1, 150), seed=st.integers(0, 999)
)
@settings(max_examples=40, deadline=None)
def test_products_of_any_shape(kind: str, rows: int, half: int, outputs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, 2 * half, generator=generator)
    x = torch.randn(rows, 2 * half, generator=generator)
    result = Tiled(packed(weight, kind))(x)
    exact = (rounded(x) if kind == "int8" else x.double()) @ meant(weight, kind).T
    # int8: an activation between two whole numbers may be rounded either way.
    bound = 2e-2 if kind == "int8" else 1e-5
    assert result.shape == exact.shape
    assert (result - exact).abs().max() <= bound * (1 + exact.abs().max())
    alone = torch.cat([Tiled(packed(weight, kind))(row[None]) for row in x[:7]])
    assert torch.equal(alone, result[:7])


def test_whole_numbers_are_exact_at_their_largest() -> None:
    """The worst case of every sum: nothing overflows or saturates."""
    for inputs in (4, 64, 2048, 30000):
        weight = torch.full((16, inputs), 127, dtype=torch.int8)
        weight[1::2] = -127
        layer = Tiled(tiles.pack_int8(weight, torch.ones(16)))
        result = layer(torch.stack([torch.ones(inputs), -torch.ones(inputs)]))
        expected = 127.0 * inputs * torch.tensor([1.0, -1.0]).repeat(8)
        torch.testing.assert_close(result, torch.stack([expected, -expected]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(kind: str, activation: str) -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(70, 32), torch.randn(9, 32)
    plain = Tiled(packed(weight, kind))(x)
    result = Tiled(packed(weight, kind), activation)(x)
    torch.testing.assert_close(result, ACTIVATIONS[activation](plain), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_addition_is_in_place_and_of_the_same_product(kind: str) -> None:
    torch.manual_seed(2)
    weight, x, to = torch.randn(50, 24), torch.randn(11, 24), torch.randn(11, 50)
    layer = Tiled(packed(weight, kind))
    expected = to + layer(x)
    assert layer.add(x, to) is to
    assert torch.equal(to, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [16, 40, 96])
def test_interleaved_weights_keep_theirs(kind: str, outputs: int) -> None:
    """Panels of two weights side by side: a product with them brings each one's outputs, panel by panel."""
    torch.manual_seed(3)
    first, second, x = torch.randn(outputs, 16), torch.randn(outputs, 16), torch.randn(5, 16)
    both = tiles.interleave(packed(first, kind), packed(second, kind))
    panels = both.weights.shape[0] // 2
    assert panels == -(-outputs // tiles.LANES)
    wide = tiles.Panels(both.kind, 16, 32 * panels, both.weights, both.scales, both.offsets)
    result = Tiled(wide)(x).view(5, panels, 2, 16)
    for number, weight in enumerate((first, second)):
        expected = Tiled(packed(weight, kind))(x)
        assert torch.equal(result[:, :, number].flatten(1)[:, :outputs], expected)


def test_threads_change_no_bit() -> None:
    torch.manual_seed(4)
    layer, x = Tiled(packed(torch.randn(200, 64), "int8")), torch.randn(20, 64)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3, 5):
            torch.set_num_threads(number)
            results.append(layer(x))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], result) for result in results)


@pytest.mark.long
def test_a_processor_with_avx2_alone() -> None:
    """The same tests, compiled for vectors of 256 bits and without products of bytes."""
    features = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not long", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_zeros_and_no_rows() -> None:
    layer = Tiled(packed(torch.randn(20, 8), "int8"))
    assert torch.equal(layer(torch.zeros(3, 8)), torch.zeros(3, 20))
    assert layer(torch.zeros(0, 8)).shape == (0, 20)


def test_compiled_functions_have_names_of_their_own() -> None:
    """Machine code from the disk finds functions by name: two of one name were once taken for each other."""
    kinds = [tiles._float32_tiles, tiles._bfloat16_tiles, tiles._float16_tiles, tiles._int8_tiles]
    assert len({kind.py_func.__qualname__ for kind in kinds}) == len(kinds)
