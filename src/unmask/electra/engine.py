"""ELECTRA's encoder arranged for inference on a CPU: packed weights, no padding, work in pieces that fit a cache.

Where the processor has what it takes, the layers are one compiled function (`unmask.electra.fused`); elsewhere,
and in bfloat16, PyTorch's operations do it.

What the arrangement does (all of it exact but for rounding):
- Query, key and value are one product; the scores' scale is multiplied into the query's matrix.
- Segment 0 is added to the position table, once.
- Texts are sorted by length inside: attention takes texts of one length together, so none is padded, and
  everything runs over some hundred tokens at a time. Results come back in the caller's order.
- Where only [CLS] is asked for, the last layer makes only [CLS].

The result of a text does not depend on its batch, bit by bit in float32 and int8: the products are row-exact.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.electra.config import ACTIVATIONS
from unmask.nn import linear
from unmask.nn.inference import ByLength, Engines, Group, Piece
from unmask.nn.kept import Bfloat16Linear
from unmask.nn.linear import PackedLinear, QuantizedLinear, pack, pack_int8
from unmask.nn.ragged import Layout

if TYPE_CHECKING:
    from unmask.electra.fused import FusedEncoder, FusedLayer
    from unmask.electra.model import ElectraEncoder
    from unmask.nn.tiles import Panels

#: Tokens that pass through all layers together: their widest activations (2 MB for electra-small) stay in cache.
PIECE_TOKENS = 512
#: Texts above this length go to PyTorch's fused attention; below it, its overhead costs more than it saves.
PLAIN_LENGTH = 256
#: Tokens that the compiled function is given at a time: 16 MB of electra-small's hidden states.
FUSED_TOKENS = 16_384

#: The types of parameters that the engine has products for.
TYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class Affine:
    """x Wᵀ + b with a packed weight."""

    packed: PackedLinear
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.packed(x).add_(self.bias)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """`to + self(x)`."""
        return self.packed.add(x, to + self.bias)


@dataclass(frozen=True, slots=True)
class Layer:
    query_key_value: PackedLinear
    #: (3, 1, heads, 1, head_width): as the rectangles of attention are laid out.
    query_key_value_bias: Tensor
    attention_output: Affine
    attention_norm: Norm
    up: Affine
    down: Affine
    feed_forward_norm: Norm


class ElectraEngine:
    """The packed weights of one encoder; made by `engine_of`."""

    def __init__(self, encoder: ElectraEncoder) -> None:
        config, tables = encoder.config, encoder.embeddings
        self.heads = config.num_attention_heads
        self.head_width = config.hidden_size // self.heads
        self.width = config.hidden_size
        self.activation: Callable[[Tensor], Tensor] = linear.ACTIVATIONS[ACTIVATIONS[config.hidden_act]]
        self.type = tables.token.weight.dtype
        self.tokens = tables.token.weight.detach()
        self.positions = tables.position.weight.detach().float()
        self.types = tables.token_type.weight.detach().float()
        self.first_type = self.positions + self.types[0]
        self.embedding_norm = _norm(tables.norm)
        self.projection = None if encoder.projection is None else _affine(encoder.projection)
        self.fused = self._fused_encoder(encoder)
        self.layers = [] if self.fused else [self._layer(layer) for layer in encoder.layers]

    def _fused_encoder(self, encoder: ElectraEncoder) -> FusedEncoder | None:
        """The layers for the compiled function; None where it can't be had or isn't faster."""
        from unmask.electra import fused

        config = encoder.config
        if not fused.usable(self.width, self.head_width, config.intermediate_size):
            return None
        if self.type == torch.bfloat16 and not _is_quantized(encoder):
            # The processor's own products of bfloat16 are several times as fast as widened weights.
            return None
        activation = ACTIVATIONS[config.hidden_act]
        layers = [self._fused_layer(layer) for layer in encoder.layers]
        return fused.FusedEncoder(layers, self.heads, activation, config.layer_norm_eps)

    def _fused_layer(self, layer: Any) -> FusedLayer:
        from unmask.electra.fused import FusedLayer, FusedLinear

        def linear(*parts: Any, query: bool = False) -> FusedLinear:
            factors = [self.head_width**-0.5 if query and part is parts[0] else 1.0 for part in parts]
            bias = torch.cat([part.bias.detach().float() * f for part, f in zip(parts, factors, strict=True)])
            return FusedLinear(_panels(list(parts), factors), bias)

        def norm(part: Any) -> tuple[Tensor, Tensor]:
            return part.weight.detach().float().contiguous(), part.bias.detach().float().contiguous()

        return FusedLayer(
            linear(layer.query, layer.key, layer.value, query=True),
            linear(layer.attention_output),
            norm(layer.attention_norm),
            linear(layer.up),
            linear(layer.down),
            norm(layer.feed_forward_norm),
        )

    def _layer(self, layer: Any) -> Layer:
        parts = [layer.query, layer.key, layer.value]
        # The scale of the scores goes into the query.
        factors = [self.head_width**-0.5, 1.0, 1.0]
        bias = torch.cat([part.bias.detach().float() * f for part, f in zip(parts, factors, strict=True)])
        return Layer(
            _packed(parts, factors),
            bias.view(3, 1, self.heads, 1, self.head_width),
            _affine(layer.attention_output),
            _norm(layer.attention_norm),
            _affine(layer.up),
            _affine(layer.down),
            _norm(layer.feed_forward_norm),
        )

    def encode(self, ids: Tensor, layout: Layout, types: Tensor | None, positions: Tensor) -> Tensor:
        """(total,) each → (total, hidden_size), in the type of the model's parameters."""
        if self.fused is not None:
            return self._run_fused(self.fused, ids, layout, types, positions, firsts=False)
        texts = ByLength.of(layout)
        out = torch.empty(layout.total, self.width)
        for piece, x in self._embedded(texts, ids, types, positions):
            for layer in self.layers:
                x = self._layer_of_all(layer, x, piece.groups)
            out[piece.rows] = x
        if texts.tokens is not None:
            out = torch.empty_like(out).index_copy_(0, texts.tokens, out)
        return out.to(self.type)

    def first_tokens(self, ids: Tensor, layout: Layout, types: Tensor | None, positions: Tensor) -> Tensor:
        """The hidden state of each text's first token: (total,) each → (batch, hidden_size)."""
        if self.fused is not None:
            return self._run_fused(self.fused, ids, layout, types, positions, firsts=True)
        texts = ByLength.of(layout)
        firsts = []
        for piece, x in self._embedded(texts, ids, types, positions):
            for layer in self.layers[:-1]:
                x = self._layer_of_all(layer, x, piece.groups)
            firsts.append(self._layer_of_firsts(self.layers[-1], x, piece.groups))
        found = torch.cat(firsts)
        return torch.empty_like(found).index_copy_(0, torch.tensor(texts.texts), found).to(self.type)

    def _run_fused(
        self,
        fused: FusedEncoder,
        ids: Tensor,
        layout: Layout,
        types: Tensor | None,
        positions: Tensor,
        *,
        firsts: bool,
    ) -> Tensor:
        found, first = [], 0
        for begin, end in _runs(layout.lengths, FUSED_TOKENS):
            lengths = layout.lengths[begin:end]
            rows = slice(first, first + sum(lengths))
            first = rows.stop
            x = self._embed(ids[rows], None if types is None else types[rows], positions[rows])
            found.append(fused(x, lengths, firsts=firsts))
        return (found[0] if len(found) == 1 else torch.cat(found)).to(self.type)

    def _embedded(
        self, texts: ByLength, ids: Tensor, types: Tensor | None, positions: Tensor
    ) -> Iterator[tuple[Piece, Tensor]]:
        if texts.tokens is not None:
            ids, positions = ids[texts.tokens], positions[texts.tokens]
            types = None if types is None else types[texts.tokens]
        for piece in texts.pieces(PIECE_TOKENS):
            rows = piece.rows
            yield piece, self._embed(ids[rows], None if types is None else types[rows], positions[rows])

    def _embed(self, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
        x = self.tokens.index_select(0, ids).float()
        if types is None:
            x += self.first_type.index_select(0, positions)
        else:
            x += self.types.index_select(0, types)
            x += self.positions.index_select(0, positions)
        x = self.embedding_norm(x)
        return x if self.projection is None else self.projection(x)

    def _layer_of_all(self, layer: Layer, x: Tensor, groups: list[Group]) -> Tensor:
        projected = layer.query_key_value(x)
        mixed = torch.empty_like(x)
        for group in groups:
            query, key, value = self._rectangles(layer, projected[group.rows], group)
            out = _attend(query, key, value).transpose(1, 2)
            mixed[group.rows].view(group.texts, group.length, self.heads, -1).copy_(out)
        return self._rest(layer, mixed, x)

    def _layer_of_firsts(self, layer: Layer, x: Tensor, groups: list[Group]) -> Tensor:
        projected = layer.query_key_value(x)
        mixed, residual = [], []
        for group in groups:
            query, key, value = self._rectangles(layer, projected[group.rows], group)
            mixed.append(_attend(query[:, :, :1].contiguous(), key, value).view(group.texts, -1))
            residual.append(x[group.rows.start : group.rows.stop : group.length])
        return self._rest(layer, torch.cat(mixed), torch.cat(residual))

    def _rectangles(self, layer: Layer, projected: Tensor, group: Group) -> Tensor:
        """(tokens, 3 · width) → (3, texts, heads, length, head_width), the biases added on the way."""
        parts = projected.view(group.texts, group.length, 3, self.heads, self.head_width)
        out = projected.new_empty(3, group.texts, self.heads, group.length, self.head_width)
        return torch.add(parts.permute(2, 0, 3, 1, 4), layer.query_key_value_bias, out=out)

    def _rest(self, layer: Layer, mixed: Tensor, x: Tensor) -> Tensor:
        x = layer.attention_norm(layer.attention_output.add(mixed, x))
        return layer.feed_forward_norm(layer.down.add(self.activation(layer.up(x)), x))


def _runs(lengths: Sequence[int], tokens: int) -> Iterator[tuple[int, int]]:
    """Runs of whole texts, each of at most so many tokens unless one text has more: from, to."""
    begin = used = 0
    for text, length in enumerate(lengths):
        if used and used + length > tokens:
            yield begin, text
            begin, used = text, 0
        used += length
    yield begin, len(lengths)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ) v of (texts, heads, length, head_width); the query holds the scale."""
    if query.shape[2] > PLAIN_LENGTH:
        return F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return torch.matmul(torch.softmax(torch.matmul(query, key.transpose(2, 3)), -1), value)


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps)


def _affine(layer: nn.Module) -> Affine:
    bias = layer.bias
    assert isinstance(bias, Tensor)
    return Affine(_packed([layer], [1.0]), bias.detach().float())


def _packed(layers: list[Any], factors: list[float]) -> PackedLinear:
    """One packed matrix out of several that read the same input, each times its factor."""
    weight, scale, precision = _joined(layers, factors)
    return pack(weight, precision) if scale is None else pack_int8(weight, scale)


def _panels(layers: list[Any], factors: list[float]) -> Panels:
    """The same for the compiled function."""
    from unmask.nn import tiles

    weight, scale, precision = _joined(layers, factors)
    if scale is not None:
        return tiles.pack_int8(weight, scale)
    narrow = precision != "float16" or weight.abs().amax() <= torch.finfo(torch.float16).max
    return tiles.pack(weight, precision if narrow else "float32")


def _joined(layers: list[Any], factors: list[float]) -> tuple[Tensor, Tensor | None, str]:
    """Weight (out, in), scale (out,) of an int8 one, precision."""
    if all(isinstance(layer, QuantizedLinear) for layer in layers):
        scales = [layer.scale * factor for layer, factor in zip(layers, factors, strict=True)]
        return torch.cat([layer.int8 for layer in layers]), torch.cat(scales), "int8"
    weight = torch.cat([layer.weight.detach().float() * f for layer, f in zip(layers, factors, strict=True)])
    if any(isinstance(layer, Bfloat16Linear) for layer in layers):
        return weight, None, _precision(torch.bfloat16)
    kinds = {layer.weight.dtype for layer in layers if not isinstance(layer, QuantizedLinear)}
    return weight, None, _precision(kinds.pop())


def _is_quantized(encoder: ElectraEncoder) -> bool:
    return any(isinstance(module, QuantizedLinear) for module in encoder.modules())


def _precision(kind: torch.dtype) -> str:
    """How a product with weights of this type is made here."""
    if kind == torch.bfloat16 and not _multiplies_bfloat16():
        return "float32"  # the same weights, in a product that is ten times as fast as an emulated one
    return str(kind).removeprefix("torch.")


@cache
def _multiplies_bfloat16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


_engines: Engines[ElectraEncoder, ElectraEngine] = Engines(ElectraEngine)


def engine_of(encoder: ElectraEncoder) -> ElectraEngine | None:
    """The engine of an encoder's weights as they are now; None where it has to run as it is written.

    That is where gradients are asked for, in training (dropout), on other devices, for float64, and for layers that are
    shards (`DTensor`), which are whole only while they run.
    """
    weight = encoder.embeddings.token.weight
    if (
        torch.is_grad_enabled()
        or encoder.training
        or weight.device.type != "cpu"
        or weight.dtype not in TYPES
        or any(hasattr(each, "placements") for each in encoder.layers.parameters())
    ):
        return None
    return _engines.of(encoder)
