"""Floating-point operations of a training step, by formula.

Counted are the matrix products (a multiplication and an addition each, as `torch.utils.flop_counter` counts),
forward, and backward as twice that: one product for the inputs' gradient, one for the weights'. Norms,
activations, softmaxes, look-ups and the optimiser are left out; they are a few per cent.
"""

from __future__ import annotations

import numpy as np

from unmask.t5.config import FEED_FORWARDS, T5Config

#: Forward and backward, in units of the forward pass.
TRAINED = 3


def encoder_flops(config: T5Config, lengths: np.ndarray) -> int:
    """Of the forward pass over inputs of these lengths, (batch,) in tokens; no padding."""
    tokens, squares = _sums(lengths)
    layer = tokens * (_projections(config) + _feed_forward(config)) + squares * _pair(config)
    return config.num_layers * layer


def decoder_flops(config: T5Config, lengths: np.ndarray, source_lengths: np.ndarray) -> int:
    """Of the forward pass over targets beside their inputs, without the output matrix.

    Causal attention is counted as the whole rectangle. The keys and values of cross-attention are made from the
    inputs' tokens, its queries and outputs from the targets'.
    """
    tokens, squares = _sums(lengths)
    sources = int(source_lengths.sum(dtype=np.int64))
    across = int(np.dot(lengths.astype(np.int64), source_lengths.astype(np.int64)))
    half = _projections(config) // 2
    layer = tokens * (_projections(config) + half + _feed_forward(config)) + sources * half
    return config.decoder_layers * (layer + (squares + across) * _pair(config))


def output_flops(config: T5Config, places: int) -> int:
    """Of the forward pass of the logits over the vocabulary, at so many places."""
    return 2 * places * config.d_model * config.vocab_size


def step_flops(config: T5Config, input_lengths: np.ndarray, target_lengths: np.ndarray) -> int:
    """Of a training step on inputs and targets of these lengths, (batch,) in tokens."""
    forward = encoder_flops(config, input_lengths)
    forward += decoder_flops(config, target_lengths, input_lengths)
    return TRAINED * (forward + output_flops(config, int(target_lengths.sum(dtype=np.int64))))


def _sums(lengths: np.ndarray) -> tuple[int, int]:
    """Tokens, and pairs of tokens of one sequence."""
    wide = lengths.astype(np.int64)
    return int(wide.sum()), int(np.dot(wide, wide))


def _projections(config: T5Config) -> int:
    """Query, key, value and output, for a token."""
    return 8 * config.d_model * config.num_heads * config.d_kv


def _feed_forward(config: T5Config) -> int:
    """Two matrices, or three where it is gated, for a token."""
    _, gated = FEED_FORWARDS[config.feed_forward_proj]
    return (6 if gated else 4) * config.d_model * config.d_ff


def _pair(config: T5Config) -> int:
    """The score of a token beside another and the mixing of its value, of all heads."""
    return 4 * config.num_heads * config.d_kv
