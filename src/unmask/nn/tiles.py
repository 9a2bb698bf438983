"""Products with few rows on a CPU: weights in panels, and the loops over them as LLVM vector code.

A *panel* holds the weights of 16 outputs, input after input, so that one vector load brings what 16 sums need
next. A *tile* is what one loop computes: a few rows times a few panels, all its sums in registers. Every sum adds
its products in the inputs' order, by fused multiply-add or in whole numbers: **the bits of a row's result depend
on that row alone**, not on the tile that it is in nor on how many rows or threads there are.

Weights are float32, bfloat16 or float16 with float32 activations and sums, or int8 with whole-number activations
of each row's own scale and exact int32 sums: 8 bits where the processor multiplies bytes (VNNI), otherwise 12
bits in int16. All are read once for all rows of a tile, and widened in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic
from torch import Tensor

#: Outputs of a panel: floats of a vector of AVX-512, of two of AVX2.
LANES = 16
#: The most rows of a tile.
ROWS = 6
#: Bytes of a tile's sums.
TILE_BYTES = ROWS * 4 * LANES * 4

FLOAT32, BFLOAT16, FLOAT16, INT8 = range(4)
KINDS = {"float32": FLOAT32, "bfloat16": BFLOAT16, "float16": FLOAT16, "int8": INT8}
#: A weight in the eyes of compiled code, see `Panels.line`.
KIND, INPUTS, OUTPUTS, WEIGHTS, SCALES, OFFSETS, FIELDS = range(7)


def _features() -> dict[str, bool]:
    """Instructions of the processor that Numba compiles for: this one, or what NUMBA_CPU_FEATURES says."""
    if config.CPU_FEATURES is not None:
        return {name[1:]: name[0] == "+" for name in config.CPU_FEATURES.split(",") if name}
    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:
        return {}


_HAS = _features()
#: Vectors of 512 bits, and 32 of them.
_WIDE = all(_HAS.get(name, False) for name in ("avx512f", "avx512bw", "avx512vl"))
_VNNI = _WIDE and _HAS.get("avx512vnni", False)
#: Inputs whose int8 weights lie in one 32-bit lane of a panel.
DEPTH = 4 if _VNNI else 2
#: Bytes of an activation in an int8 product.
BYTES = 1 if _VNNI else 2
#: What stands for zero in an activation: the instruction of VNNI takes unsigned bytes.
ZERO = 128 if _VNNI else 0
#: Panels of a tile, by its rows: what fits into 32 registers of 16 floats, or 16 of 8.
_PANELS = (4, 4, 4, 4, 4, 4) if _WIDE else (4, 2, 2, 1, 1, 1)


def available() -> bool:
    """Whether this processor has the instructions: AVX2 with fused multiply-add and float16 conversion."""
    return all(_HAS.get(name, False) for name in ("avx2", "fma", "f16c"))


@dataclass(frozen=True, slots=True)
class Panels:
    """A packed weight.

    Attributes:
        kind: FLOAT32, BFLOAT16, FLOAT16 or INT8.
        inputs: of the layer; even.
        outputs: of the layer; the last panel is filled up with zeros.
        weights: (panels, inputs, 16); bfloat16: (panels, inputs / 2, 16, 2); int8: (panels, inputs / DEPTH, 16,
            DEPTH), inputs filled up.
        scales: (panels · 16,) float32, of each output; int8 alone.
        offsets: (panels · 16,) int32, what `ZERO` adds to each output's sum; int8 alone.
    """

    kind: int
    inputs: int
    outputs: int
    weights: Tensor
    scales: Tensor | None = None
    offsets: Tensor | None = None

    def line(self) -> list[int]:
        """What compiled code reads: FIELDS numbers. The addresses hold as long as this object lives."""
        scales = 0 if self.scales is None else self.scales.data_ptr()
        offsets = 0 if self.offsets is None else self.offsets.data_ptr()
        return [self.kind, self.inputs, self.outputs, self.weights.data_ptr(), scales, offsets]


def pack(weight: Tensor, precision: str) -> Panels:
    """Pack a floating-point weight (out, in) as "float32", "bfloat16" or "float16"; `in` must be even."""
    outputs, inputs = weight.shape
    kind = KINDS[precision]
    panels = _in_panels(weight.detach().to(getattr(torch, precision)))
    if kind == BFLOAT16:
        panels = panels.unflatten(2, (-1, 2)).transpose(1, 2)
    else:
        panels = panels.transpose(1, 2)
    return Panels(kind, inputs, outputs, panels.contiguous())


def pack_int8(weight: Tensor, scale: Tensor) -> Panels:
    """Pack an int8 weight (out, in) with a scale for each output (out,)."""
    outputs, inputs = weight.shape
    panels = _in_panels(F.pad(weight.detach(), (0, -inputs % DEPTH)))
    offsets = panels.int().sum(2).flatten() * ZERO
    scales = F.pad(scale.detach().float(), (0, panels.shape[0] * LANES - outputs))
    return Panels(
        INT8,
        inputs,
        outputs,
        panels.unflatten(2, (-1, DEPTH)).transpose(1, 2).contiguous(),
        scales.contiguous(),
        offsets.int().contiguous(),
    )


def interleave(first: Panels, second: Panels) -> Panels:
    """Two weights of the same shape and kind as one: a panel of the first, a panel of the second, and so on."""

    panels = first.weights.shape[0]

    def merged(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        if one is None or other is None:
            return None
        return torch.stack([one.reshape(panels, -1), other.reshape(panels, -1)], 1).flatten(0, 1).contiguous()

    weights = merged(first.weights, second.weights)
    assert weights is not None
    return Panels(
        first.kind,
        first.inputs,
        first.outputs,
        weights,
        merged(first.scales, second.scales),
        merged(first.offsets, second.offsets),
    )


def _in_panels(weight: Tensor) -> Tensor:
    """(out, in) → (panels, 16, in)."""
    return F.pad(weight, (0, 0, 0, -weight.shape[0] % LANES)).unflatten(0, (-1, LANES))


# Compiled code. Addresses and strides are int64, in bytes.

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT, HALF = ir.FloatType(), ir.HalfType()
_Builder = ir.IRBuilder
_Load = Callable[[_Builder, Any], list[Any]]


def vector(element: Any, lanes: int = LANES) -> Any:
    return ir.VectorType(element, lanes)


def constant(element: Any, value: Any, lanes: int = LANES) -> Any:
    return ir.Constant(vector(element, lanes), [value] * lanes)


def load(builder: _Builder, address: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: _Builder, value: Any, address: Any, align: int) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def _at(builder: _Builder, base: Any, offset: int) -> Any:
    return builder.add(base, I64(offset)) if offset else base


def spread(builder: _Builder, value: Any) -> Any:
    """A vector of 16 times the value."""
    empty = ir.Constant(vector(value.type), ir.Undefined)
    one = builder.insert_element(empty, value, I32(0))
    return builder.shuffle_vector(one, empty, constant(I32, 0))


def call(builder: _Builder, name: str, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    module = builder.module
    found = module.globals.get(name)
    return builder.call(found if found is not None else ir.Function(module, kind, name), arguments)


def fma(builder: _Builder, one: Any, other: Any, to: Any) -> Any:
    return call(builder, "llvm.fma.v16f32", to.type, [one, other, to])


def _dot_bytes(builder: _Builder, sums: Any, activations: Any, weights: Any) -> Any:
    """VNNI: each lane's four unsigned activations times its four signed weights, added up."""
    if llvm.llvm_version_info[0] >= 22:
        activations = builder.bitcast(activations, vector(I8, 64))
    else:
        weights = builder.bitcast(weights, vector(I32))
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", sums.type, [sums, activations, weights])


def _dot_words(builder: _Builder, sums: Any, activations: Any, weights: Any) -> Any:
    """Each lane's two 16-bit activations times its two weights, added up."""
    words = builder.bitcast(activations, vector(I16, 32))
    if _WIDE:
        pairs = call(builder, "llvm.x86.avx512.pmaddw.d.512", sums.type, [words, weights])
        return builder.add(sums, pairs)
    halves = []
    for half in (0, 16):
        lanes = ir.Constant(vector(I32, 16), list(range(half, half + 16)))
        parts = [builder.shuffle_vector(side, side, lanes) for side in (words, weights)]
        halves.append(call(builder, "llvm.x86.avx2.pmadd.wd", vector(I32, 8), parts))
    lanes = ir.Constant(vector(I32, 16), list(range(16)))
    return builder.add(sums, builder.shuffle_vector(halves[0], halves[1], lanes))


@dataclass(frozen=True)
class _Form:
    """How a tile of one kind of weight goes one step along the inputs.

    Attributes:
        inputs: that one step takes.
        activation_bytes: of one row in one step.
        weight_bytes: of one panel in one step.
        sum: what one sum is.
    """

    inputs: int
    activation_bytes: int
    weight_bytes: int
    sum: Any

    def weights(self, builder: _Builder, address: Any) -> list[Any]:
        raise NotImplementedError

    def activations(self, builder: _Builder, address: Any) -> list[Any]:
        """The same number of vectors as `weights` gives."""
        return [
            spread(builder, load(builder, _at(builder, address, 4 * i), FLOAT, 4)) for i in range(self.inputs)
        ]

    def add(self, builder: _Builder, sums: Any, activations: Any, weights: Any) -> Any:
        return fma(builder, activations, weights, sums)


class _Float32(_Form):
    def weights(self, builder: _Builder, address: Any) -> list[Any]:
        return [load(builder, address, vector(FLOAT), 4)]


class _Float16(_Form):
    def weights(self, builder: _Builder, address: Any) -> list[Any]:
        return [builder.fpext(load(builder, address, vector(HALF), 2), vector(FLOAT))]


class _Bfloat16(_Form):
    def weights(self, builder: _Builder, address: Any) -> list[Any]:
        pairs = load(builder, address, vector(I32), 4)
        even = builder.shl(pairs, constant(I32, 16))
        odd = builder.and_(pairs, constant(I32, 0xFFFF0000))
        return [builder.bitcast(half, vector(FLOAT)) for half in (even, odd)]


class _Int8(_Form):
    def weights(self, builder: _Builder, address: Any) -> list[Any]:
        weights = load(builder, address, vector(I8, LANES * DEPTH), 1)
        return [weights if _VNNI else builder.sext(weights, vector(I16, 32))]

    def activations(self, builder: _Builder, address: Any) -> list[Any]:
        return [spread(builder, load(builder, address, I32, 1))]

    def add(self, builder: _Builder, sums: Any, activations: Any, weights: Any) -> Any:
        return (_dot_bytes if _VNNI else _dot_words)(builder, sums, activations, weights)


_FORMS = {
    FLOAT32: _Float32(1, 4, 64, FLOAT),
    BFLOAT16: _Bfloat16(2, 8, 64, FLOAT),
    FLOAT16: _Float16(1, 4, 32, FLOAT),
    INT8: _Int8(DEPTH, 4, 16 * DEPTH, I32),
}


def _tile(kind: int, rows: int, panels: int) -> Any:
    """The loop of one tile: sums[row, panel, 16] = Σ over steps of activations × weights."""
    form = _FORMS[kind]

    @intrinsic
    def tile(
        typing: Any,
        sums: Any,
        sums_stride: Any,
        x: Any,
        x_stride: Any,
        weights: Any,
        panel_stride: Any,
        step: Any,
        steps: Any,
    ) -> Any:
        def generate(context: Any, builder: _Builder, signature: Any, arguments: Any) -> Any:
            sums, sums_stride, x, x_stride, weights, panel_stride, step, steps = arguments
            before = builder.block
            body, behind = builder.append_basic_block("step"), builder.append_basic_block("steps.end")
            lines = [builder.add(x, builder.mul(x_stride, I64(row))) for row in range(rows)]
            columns = [builder.add(weights, builder.mul(panel_stride, I64(panel))) for panel in range(panels)]
            zero = constant(form.sum, 0)
            builder.cbranch(builder.icmp_signed(">", steps, I64(0)), body, behind)
            builder.position_at_end(body)
            count = builder.phi(I64)
            count.add_incoming(I64(0), before)
            held = [builder.phi(vector(form.sum)) for _ in range(rows * panels)]
            for phi in held:
                phi.add_incoming(zero, before)
            new = _step(builder, form, held, lines, columns, count, step)
            following = builder.add(count, I64(1))
            count.add_incoming(following, body)
            for phi, value in zip(held, new, strict=True):
                phi.add_incoming(value, body)
            builder.cbranch(builder.icmp_signed("<", following, steps), body, behind)
            builder.position_at_end(behind)
            for place, value in enumerate(new):
                result = builder.phi(vector(form.sum))
                result.add_incoming(zero, before)
                result.add_incoming(value, body)
                new[place] = result
            for row in range(rows):
                line = builder.add(sums, builder.mul(sums_stride, I64(row)))
                for panel in range(panels):
                    store(builder, new[row * panels + panel], _at(builder, line, 64 * panel), 4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return tile


def _step(
    builder: _Builder,
    form: _Form,
    sums: list[Any],
    lines: list[Any],
    columns: list[Any],
    count: Any,
    step: Any,
) -> list[Any]:
    """All sums of a tile, one step further."""
    along = builder.mul(count, step)
    read = [form.weights(builder, builder.add(column, along)) for column in columns]
    across = builder.mul(count, I64(form.activation_bytes))
    new = list(sums)
    for row, line in enumerate(lines):
        activations = form.activations(builder, builder.add(line, across))
        for column, weights in enumerate(read):
            place = row * len(columns) + column
            for activation, weight in zip(activations, weights, strict=True):
                new[place] = form.add(builder, new[place], activation, weight)
    return new


def _tiles(kind: int, form: str) -> Any:
    """The tiles of one kind of weight: `panels` at once are 1, or what goes with so many rows."""
    full = [_tile(kind, rows, _PANELS[rows - 1]) for rows in range(1, ROWS + 1)]
    single = [_tile(kind, rows, 1) for rows in range(1, ROWS + 1)]
    full_1, full_2, full_3, full_4, full_5, full_6 = full
    single_1, single_2, single_3, single_4, single_5, single_6 = single

    def tiles(
        rows: int,
        panels: int,
        sums: int,
        sums_stride: int,
        x: int,
        x_stride: int,
        weights: int,
        panel_stride: int,
        step: int,
        steps: int,
    ) -> None:
        if panels == 1:
            if rows == 1:
                single_1(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
            elif rows == 2:
                single_2(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
            elif rows == 3:
                single_3(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
            elif rows == 4:
                single_4(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
            elif rows == 5:
                single_5(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
            else:
                single_6(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
        elif rows == 1:
            full_1(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
        elif rows == 2:
            full_2(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
        elif rows == 3:
            full_3(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
        elif rows == 4:
            full_4(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
        elif rows == 5:
            full_5(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)
        else:
            full_6(sums, sums_stride, x, x_stride, weights, panel_stride, step, steps)

    # Code from the disk and code compiled in this process find each other by name and by a number that differs
    # from process to process: two functions of one name could be taken for each other.
    tiles.__name__ = tiles.__qualname__ = f"tiles_of_{form}"
    return njit(tiles)


_float32_tiles = _tiles(FLOAT32, "float32")
_bfloat16_tiles = _tiles(BFLOAT16, "bfloat16")
_float16_tiles = _tiles(FLOAT16, "float16")
_int8_tiles = _tiles(INT8, "int8")
_AT_ONCE = np.array(_PANELS, dtype=np.int64)
_INPUTS = np.array([_FORMS[kind].inputs for kind in range(4)], dtype=np.int64)
_STEP = np.array([_FORMS[kind].weight_bytes for kind in range(4)], dtype=np.int64)


@njit
def panels_at_once(rows: int) -> int:
    """Panels of a tile of so many rows."""
    return _AT_ONCE[rows - 1]


@njit
def panel_bytes(kind: int, inputs: int) -> int:
    """Bytes from one panel to the next."""
    return -(-inputs // _INPUTS[kind]) * _STEP[kind]


@njit
def multiply(
    kind: int,
    rows: int,
    panels: int,
    sums: int,
    sums_stride: int,
    x: int,
    x_stride: int,
    weights: int,
    inputs: int,
) -> None:
    """One tile: sums[row, panel, 16] = x W; float32, or int32 for int8.

    Args:
        rows: 1 to ROWS.
        panels: `panels_at_once(rows)`, or of more rows; or 1.
        sums: address of the result.
        sums_stride: bytes from one row of it to the next.
        x: address of the first row, float32 or (int8) what `quantise` made.
        weights: address of the first panel.
    """
    step, steps = _STEP[kind], -(-inputs // _INPUTS[kind])
    if kind == INT8:
        _int8_tiles(rows, panels, sums, sums_stride, x, x_stride, weights, step * steps, step, steps)
    elif kind == BFLOAT16:
        _bfloat16_tiles(rows, panels, sums, sums_stride, x, x_stride, weights, step * steps, step, steps)
    elif kind == FLOAT16:
        _float16_tiles(rows, panels, sums, sums_stride, x, x_stride, weights, step * steps, step, steps)
    else:
        _float32_tiles(rows, panels, sums, sums_stride, x, x_stride, weights, step * steps, step, steps)


@njit
def combine(
    kind: int,
    rows: int,
    blocks: int,
    sums: int,
    sums_stride: int,
    factors: int,
    factor_stride: int,
    vectors: int,
    step: int,
    steps: int,
) -> None:
    """sums[row, 16 · blocks] = Σ over steps of factors[row, step] · vectors[step, 16 · blocks].

    Args:
        kind: FLOAT32 or FLOAT16, of the vectors.
        step: bytes from one step's vectors to the next's.
    """
    at_once, width = panels_at_once(rows), _STEP[kind]
    block = 0
    while block < blocks:
        taken = at_once if block + at_once <= blocks else 1
        here, there = sums + block * LANES * 4, vectors + block * width
        if kind == FLOAT16:
            _float16_tiles(rows, taken, here, sums_stride, factors, factor_stride, there, width, step, steps)
        else:
            _float32_tiles(rows, taken, here, sums_stride, factors, factor_stride, there, width, step, steps)
        block += taken


def _reduction(how: str) -> Any:
    """A loop over whole vectors of float32 that ends in one number: (address, vectors) → float32."""

    @intrinsic
    def reduce(typing: Any, address: Any, vectors: Any) -> Any:
        def generate(context: Any, builder: _Builder, signature: Any, arguments: Any) -> Any:
            address, vectors = arguments
            first = float("-inf") if how == "largest" else 0.0
            before = builder.block
            body, behind = builder.append_basic_block("vector"), builder.append_basic_block("vectors.end")
            start = constant(FLOAT, first)
            builder.cbranch(builder.icmp_signed(">", vectors, I64(0)), body, behind)
            builder.position_at_end(body)
            count, held = builder.phi(I64), builder.phi(vector(FLOAT))
            count.add_incoming(I64(0), before)
            held.add_incoming(start, before)
            x = load(builder, builder.add(address, builder.mul(count, I64(64))), vector(FLOAT), 4)
            new = _combined(builder, how, held, x)
            following = builder.add(count, I64(1))
            count.add_incoming(following, body)
            held.add_incoming(new, body)
            builder.cbranch(builder.icmp_signed("<", following, vectors), body, behind)
            builder.position_at_end(behind)
            result = builder.phi(vector(FLOAT))
            result.add_incoming(start, before)
            result.add_incoming(new, body)
            if how in ("largest", "largest_size"):
                return call(builder, "llvm.vector.reduce.fmax.v16f32", FLOAT, [result])
            return call(builder, "llvm.vector.reduce.fadd.v16f32", FLOAT, [FLOAT(0.0), result])

        return types.float32(types.int64, types.int64), generate

    return reduce


def _combined(builder: _Builder, how: str, held: Any, x: Any) -> Any:
    if how == "squares":
        return fma(builder, x, x, held)
    if how == "total":
        return builder.fadd(held, x)
    if how == "largest_size":
        x = call(builder, "llvm.fabs.v16f32", x.type, [x])
    return builder.select(builder.fcmp_ordered(">", x, held), x, held)


#: Σ x² and Σ x, added up in 16 lanes and then these in order; max x (-inf of none) and max |x| (0 of none).
squares, total, largest, largest_size = map(_reduction, ("squares", "total", "largest", "largest_size"))


@intrinsic
def round_vector(typing: Any, x: Any, factor: Any, to: Any) -> Any:
    """16 activations of an int8 product: round(x · factor), ties to even, from one address to another."""

    def generate(context: Any, builder: _Builder, signature: Any, arguments: Any) -> Any:
        x, factor, to = arguments
        scaled = builder.fmul(load(builder, x, vector(FLOAT), 4), spread(builder, factor))
        whole = call(builder, "llvm.roundeven.v16f32", scaled.type, [scaled])
        numbers = builder.add(builder.fptosi(whole, vector(I32)), constant(I32, ZERO))
        store(builder, builder.trunc(numbers, vector(I8 if BYTES == 1 else I16)), to, 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), generate


def _settled(int8: bool, added: bool, biased: bool) -> Any:
    """16 sums of one row as results: see `settle`."""

    @intrinsic
    def settled(
        typing: Any, sums: Any, scales: Any, offsets: Any, bias: Any, factor: Any, result: Any
    ) -> Any:
        def generate(context: Any, builder: _Builder, signature: Any, arguments: Any) -> Any:
            sums, scales, offsets, bias, factor, result = arguments
            if int8:
                numbers = load(builder, sums, vector(I32), 4)
                numbers = builder.sub(numbers, load(builder, offsets, vector(I32), 4))
                values = builder.sitofp(numbers, vector(FLOAT))
                values = builder.fmul(values, load(builder, scales, vector(FLOAT), 4))
            else:
                values = load(builder, sums, vector(FLOAT), 4)
            values = builder.fmul(values, spread(builder, factor))
            if biased:
                values = builder.fadd(values, load(builder, bias, vector(FLOAT), 4))
            if added:
                values = builder.fadd(values, load(builder, result, vector(FLOAT), 4))
            store(builder, values, result, 4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4, types.float32, types.int64), generate

    return settled


_floats, _floats_biased = _settled(False, False, False), _settled(False, False, True)
_floats_added, _floats_biased_added = _settled(False, True, False), _settled(False, True, True)
_int8, _int8_biased = _settled(True, False, False), _settled(True, False, True)
_int8_added, _int8_biased_added = _settled(True, True, False), _settled(True, True, True)


@njit
def settle(
    int8: bool, added: bool, sums: int, scales: int, offsets: int, bias: int, factor: Any, result: int
) -> None:
    """16 sums of `multiply` as float32 results; all but the factor are addresses.

    result = sums · factor + bias, or (sums - offsets) · scales · factor + bias for int8; plus what is there if
    `added`. A bias of 0 is none.
    """
    if int8:
        if added:
            if bias != 0:
                _int8_biased_added(sums, scales, offsets, bias, factor, result)
            else:
                _int8_added(sums, scales, offsets, bias, factor, result)
        elif bias != 0:
            _int8_biased(sums, scales, offsets, bias, factor, result)
        else:
            _int8(sums, scales, offsets, bias, factor, result)
    elif added:
        if bias != 0:
            _floats_biased_added(sums, scales, offsets, bias, factor, result)
        else:
            _floats_added(sums, scales, offsets, bias, factor, result)
    elif bias != 0:
        _floats_biased(sums, scales, offsets, bias, factor, result)
    else:
        _floats(sums, scales, offsets, bias, factor, result)


#: The largest float16.
_LARGEST_HALF = 65504.0


@intrinsic
def store_half(typing: Any, value: Any, address: Any) -> Any:
    """A float32 as float16 at an address; what is too large becomes the largest."""

    def generate(context: Any, builder: _Builder, signature: Any, arguments: Any) -> Any:
        value, address = arguments
        for name, bound in (("llvm.minnum.f32", _LARGEST_HALF), ("llvm.maxnum.f32", -_LARGEST_HALF)):
            value = call(builder, name, FLOAT, [value, FLOAT(bound)])
        store(builder, builder.fptrunc(value, HALF), address, 2)
        return context.get_dummy_value()

    return types.void(types.float32, types.int64), generate


@njit
def activation_steps(inputs: int) -> int:
    """The largest whole number of an activation: no sum of `inputs` products may leave 32 bits."""
    return 127 if _VNNI else min(2047, (2**31 - 1) // (127 * inputs))
