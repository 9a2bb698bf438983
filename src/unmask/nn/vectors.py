"""Functions of 16 floats at a time as LLVM vector code: the exponential, and activations.

Numba's own loops over such functions come out one number at a time. Everything here works in place at an address,
each lane for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from unmask.nn.tiles import FLOAT, I32, LANES, call, constant, fma, load, spread, store, vector

#: Activations by name; None leaves values as they are.
ACTIVATIONS = {None: 0, "relu": 1, "gelu_tanh": 2, "silu": 3, "gelu": 4}
_RELU, _GELU_TANH, _SILU, _GELU = 1, 2, 3, 4


def _bounded(builder: ir.IRBuilder, x: Any, low: float, high: float) -> Any:
    for sign, bound in (("<", low), (">", high)):
        edge = constant(FLOAT, bound)
        x = builder.select(builder.fcmp_ordered(sign, x, edge), edge, x)
    return x


def _polynomial(builder: ir.IRBuilder, x: Any, coefficients: list[float]) -> Any:
    """Horner's scheme, the highest power first."""
    value = constant(FLOAT, coefficients[0])
    for coefficient in coefficients[1:]:
        value = fma(builder, value, x, constant(FLOAT, coefficient))
    return value


def _exp(builder: ir.IRBuilder, x: Any) -> Any:
    """e^x to about one unit in the last place (Cephes' expf); 0 below -87."""
    bounded = _bounded(builder, x, -87.0, 88.0)
    scaled = builder.fmul(bounded, constant(FLOAT, 1.44269504088896341))
    whole = call(builder, "llvm.roundeven.v16f32", x.type, [scaled])
    rest = fma(builder, whole, constant(FLOAT, -0.693359375), bounded)
    rest = fma(builder, whole, constant(FLOAT, 2.12194440e-4), rest)
    series = _polynomial(
        builder,
        rest,
        [
            1.9875691500e-4,
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ],
    )
    rest_and_one = builder.fadd(rest, constant(FLOAT, 1.0))
    result = fma(builder, builder.fmul(series, rest), rest, rest_and_one)
    exponent = builder.add(builder.fptosi(whole, vector(I32)), constant(I32, 127))
    power = builder.bitcast(builder.shl(exponent, constant(I32, 23)), x.type)
    above = builder.fcmp_ordered(">=", x, constant(FLOAT, -87.0))
    return builder.select(above, builder.fmul(result, power), constant(FLOAT, 0.0))


def _erf(builder: ir.IRBuilder, x: Any) -> Any:
    """The error function to some units in the last place: the rational function of Eigen (`generic_fast_erf`)."""
    x = _bounded(builder, x, -4.0, 4.0)
    square = builder.fmul(x, x)
    above = [
        -2.72614225801306e-10,
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    ]
    below = [
        -1.45660718464996e-05,
        -2.13374055278905e-04,
        -1.68282697438203e-03,
        -7.37332916720468e-03,
        -1.42647390514189e-02,
    ]
    scaled = builder.fmul(x, _polynomial(builder, square, above))
    return builder.fdiv(scaled, _polynomial(builder, square, below))


def _logistic(builder: ir.IRBuilder, x: Any, of: Any) -> Any:
    """x / (1 + e^-of)."""
    below = builder.fadd(constant(FLOAT, 1.0), _exp(builder, builder.fneg(of)))
    return builder.fdiv(x, below)


def _relu(builder: ir.IRBuilder, x: Any) -> Any:
    zero = constant(FLOAT, 0.0)
    return builder.select(builder.fcmp_unordered("<", x, zero), zero, x)


def _gelu_tanh(builder: ir.IRBuilder, x: Any) -> Any:
    # x (1 + tanh u) / 2 = x / (1 + e^-2u), u = √(2/π) (x + 0.044715 x³)
    cube = builder.fmul(builder.fmul(x, x), x)
    inside = fma(builder, cube, constant(FLOAT, 0.044715), x)
    return _logistic(builder, x, builder.fmul(inside, constant(FLOAT, 2 * 0.7978845608028654)))


def _silu(builder: ir.IRBuilder, x: Any) -> Any:
    return _logistic(builder, x, x)


def _gelu(builder: ir.IRBuilder, x: Any) -> Any:
    half = builder.fmul(x, constant(FLOAT, 0.5))
    error = _erf(builder, builder.fmul(x, constant(FLOAT, 0.7071067811865476)))
    return fma(builder, half, error, half)


# Slopes: of each activation, at x.


def _relu_slope(builder: ir.IRBuilder, x: Any) -> Any:
    above = builder.fcmp_ordered(">", x, constant(FLOAT, 0.0))
    return builder.select(above, constant(FLOAT, 1.0), constant(FLOAT, 0.0))


def _gelu_tanh_slope(builder: ir.IRBuilder, x: Any) -> Any:
    # x s with s = 1 / (1 + e^-2u): s + x s (1 - s) 2u', u' = √(2/π) (1 + 3 · 0.044715 x²)
    square = builder.fmul(x, x)
    inside = builder.fmul(x, fma(builder, square, constant(FLOAT, 0.044715), constant(FLOAT, 1.0)))
    double = 2 * 0.7978845608028654
    one = constant(FLOAT, 1.0)
    share = _logistic(builder, one, builder.fmul(inside, constant(FLOAT, double)))
    steep = fma(builder, square, constant(FLOAT, 3 * 0.044715 * double), constant(FLOAT, double))
    rest = builder.fmul(builder.fmul(share, builder.fsub(one, share)), builder.fmul(x, steep))
    return builder.fadd(share, rest)


def _silu_slope(builder: ir.IRBuilder, x: Any) -> Any:
    one = constant(FLOAT, 1.0)
    share = _logistic(builder, one, x)
    return fma(builder, builder.fmul(share, builder.fsub(one, share)), x, share)


def _gelu_slope(builder: ir.IRBuilder, x: Any) -> Any:
    # Φ(x) + x φ(x)
    half = constant(FLOAT, 0.5)
    error = _erf(builder, builder.fmul(x, constant(FLOAT, 0.7071067811865476)))
    below = fma(builder, error, half, half)
    density = _exp(builder, builder.fmul(builder.fmul(x, x), constant(FLOAT, -0.5)))
    return fma(builder, builder.fmul(density, constant(FLOAT, 0.3989422804014327)), x, below)


def _in_place(function: Callable[[ir.IRBuilder, Any], Any]) -> Any:
    """A function of 16 floats as an operation on an address."""

    @intrinsic
    def operation(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            x = load(builder, arguments[0], vector(FLOAT), 4)
            store(builder, function(builder, x), arguments[0], 4)
            return context.get_dummy_value()

        return types.void(types.int64), generate

    return operation


_relu_here, _gelu_tanh_here, _silu_here, _gelu_here = map(_in_place, (_relu, _gelu_tanh, _silu, _gelu))
_relu_slope_here, _gelu_tanh_slope_here, _silu_slope_here, _gelu_slope_here = map(
    _in_place, (_relu_slope, _gelu_tanh_slope, _silu_slope, _gelu_slope)
)


@njit
def activate(kind: int, address: int, vectors: int) -> None:
    """An activation of so many whole vectors, in place."""
    end = address + vectors * LANES * 4
    if kind == _RELU:
        for place in range(address, end, LANES * 4):
            _relu_here(place)
    elif kind == _GELU_TANH:
        for place in range(address, end, LANES * 4):
            _gelu_tanh_here(place)
    elif kind == _SILU:
        for place in range(address, end, LANES * 4):
            _silu_here(place)
    elif kind == _GELU:
        for place in range(address, end, LANES * 4):
            _gelu_here(place)


@njit
def slope(kind: int, address: int, vectors: int) -> None:
    """The derivative of an activation at so many whole vectors, in place."""
    end = address + vectors * LANES * 4
    if kind == _RELU:
        for place in range(address, end, LANES * 4):
            _relu_slope_here(place)
    elif kind == _GELU_TANH:
        for place in range(address, end, LANES * 4):
            _gelu_tanh_slope_here(place)
    elif kind == _SILU:
        for place in range(address, end, LANES * 4):
            _silu_slope_here(place)
    elif kind == _GELU:
        for place in range(address, end, LANES * 4):
            _gelu_slope_here(place)


@intrinsic
def exp_behind(typing: Any, address: Any, peak: Any) -> Any:
    """e^(x - peak) of 16 floats, in place; 0 of -inf."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        address, peak = arguments
        x = builder.fsub(load(builder, address, vector(FLOAT), 4), spread(builder, peak))
        store(builder, _exp(builder, x), address, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate
