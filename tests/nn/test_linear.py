"""Packed linear layers: what they compute, and that rows do not depend on each other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unmask.nn.kept import Bfloat16Linear
from unmask.nn.linear import ACTIVATIONS, QuantizedLinear, pack, quantize, quantize_linears

SHAPES = [(64, 64), (96, 40), (512, 512), (1536, 512), (512, 2048), (2048, 512), (384, 1024), (70, 100)]
#: Root mean square of the error, as a share of the results' standard deviation.
TOLERANCE = {"float32": 1e-6, "float16": 5e-4, "bfloat16": 5e-3, "int8": 2.2e-2}


def weight_of(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * shape[1] ** -0.5


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_agrees_with_a_plain_product(precision: str, activation: str | None) -> None:
    weight, x = weight_of((96, 64)), torch.randn(11, 64, generator=torch.Generator().manual_seed(2))
    expected = F.linear(x, weight)
    expected = expected if activation is None else ACTIVATIONS[activation](expected)
    packed = pack(weight, precision, activation)
    for rows in (1, 3, 4, 5, 11):
        error = (packed(x[:rows]) - expected[:rows]).square().mean().sqrt() / expected.std()
        assert error < TOLERANCE[precision]


@pytest.mark.parametrize("precision", TOLERANCE)
def test_adds(precision: str) -> None:
    packed, x, to = pack(weight_of((96, 64)), precision), torch.randn(7, 64), torch.randn(7, 96)
    for rows in (1, 5, 7):
        expected = to[:rows] + packed(x[:rows])
        assert (packed.add(x[:rows], to[:rows].clone()) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_do_not_depend_on_each_other(shape: tuple[int, int], precision: str, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        packed, activated = pack(weight_of(shape), precision), pack(weight_of(shape), precision, "relu")
        x, to = torch.randn(100, shape[1]), torch.randn(100, shape[0])
        whole, sums = activated(x), packed.add(x, to.clone())
        for first, last in [(0, 1), (5, 7), (7, 10), (10, 14), (20, 25), (30, 47), (3, 99)]:
            part = slice(first, last)
            assert torch.equal(activated(x[part]), whole[part])
            assert torch.equal(packed.add(x[part], to[part].clone()), sums[part])
    finally:
        torch.set_num_threads(before)


def test_a_weight_beyond_float16_is_not_cut() -> None:
    weight = torch.tensor([[1e6, 1.0], [2.0, 3.0]])
    assert torch.allclose(pack(weight, "float16")(torch.ones(1, 2)), torch.tensor([[1e6 + 1, 5.0]]))


def test_int8_steps() -> None:
    int8, scale = quantize(torch.tensor([[1.27, -0.635], [0.0, 0.0]]))
    assert int8.tolist() == [[127, -64], [0, 0]]
    assert scale[0].item() == pytest.approx(0.01)


def test_int8_sums_are_not_cut() -> None:
    """Neighbouring weights and activations at the ends of their range, where 16-bit sums would overflow."""
    weight, x = torch.full((32, 64), 0.7), torch.full((3, 64), 0.9) * torch.tensor([[1.0], [-1.0], [1.0]])
    weight[1::2] *= -1
    error = (pack(weight, "int8")(x) - F.linear(x, weight)).abs().max()
    assert error < 1e-2 * F.linear(x, weight).abs().max()


def test_int8_rows_of_zeros_and_of_unlike_sizes() -> None:
    weight = weight_of((32, 64))
    x = torch.randn(4, 64) * torch.tensor([[1e-6], [1.0], [1e6], [0.0]])
    y, expected = pack(weight, "int8")(x), F.linear(x, weight)
    assert torch.equal(y[3], torch.zeros(32))
    assert ((y - expected).abs().amax(1)[:3] < 0.03 * x.abs().amax(1)[:3]).all()


def test_quantized_linear_keeps_shape_type_and_bias() -> None:
    torch.manual_seed(3)
    linear = nn.Linear(64, 32)
    model = nn.Sequential(nn.Sequential(linear), nn.ReLU())
    x = torch.randn(2, 3, 64)
    expected = model(x)
    quantize_linears(model)
    assert isinstance(model[0][0], QuantizedLinear)
    assert (model(x) - expected).abs().max() < 0.05
    assert model(x.bfloat16()).dtype == torch.bfloat16
    assert (model[0][0].weight - linear.weight).abs().max() < linear.weight.abs().max() / 200


@pytest.mark.parametrize("kind", [QuantizedLinear, Bfloat16Linear])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])  # noqa: S301
def test_a_used_layer_can_be_copied(
    kind: type[QuantizedLinear | Bfloat16Linear], copied: Callable[[nn.Module], nn.Module]
) -> None:
    layer, x = kind(weight_of((48, 64))), torch.randn(3, 64)
    before = layer(x)
    other = copied(layer)
    layer.load_state_dict(kind(torch.zeros(48, 64)).state_dict())
    assert torch.equal(layer(x), torch.zeros(3, 48))
    del layer
    assert torch.equal(other(x), before)
