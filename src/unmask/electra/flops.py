"""Floating-point operations of a training step, by formula: what an equal-compute comparison holds equal.

Counted are the matrix products (a multiplication and an addition each, as `torch.utils.flop_counter` counts),
forward, and backward as twice that: one product for the inputs' gradient, one for the weights'. Norms,
activations, softmaxes, look-ups and the optimiser are left out; they are a few per cent.
"""

from __future__ import annotations

from collections.abc import Sequence

from unmask.electra.config import ElectraConfig

#: Forward and backward, in units of the forward pass.
TRAINED = 3


def encoder_flops(config: ElectraConfig, lengths: Sequence[int]) -> int:
    """Of the forward pass over sequences of these lengths, in tokens; no padding."""
    width, inner, tokens = config.hidden_size, config.intermediate_size, sum(lengths)
    joint = 0 if config.embedding_size == width else 2 * config.embedding_size * width
    # Query, key, value and output are width × width; the feed-forward is two matrices of width × inner.
    layer = tokens * (8 * width * width + 4 * width * inner)
    # Scores and the mixing of values: each a product of length × width × length for every sequence.
    layer += sum(4 * width * length * length for length in lengths)
    return tokens * joint + config.num_hidden_layers * layer


def output_flops(config: ElectraConfig, places: int) -> int:
    """Of the forward pass of the logits over the vocabulary, at so many places."""
    return 2 * places * config.embedding_size * config.vocab_size


def generator_head_flops(config: ElectraConfig, places: int) -> int:
    """Of the forward pass of a generator's head without its output layer."""
    return 2 * places * config.hidden_size * config.embedding_size


def judging_flops(config: ElectraConfig, tokens: int) -> int:
    """Of the forward pass of a discriminator's head."""
    return 2 * tokens * config.hidden_size * (config.hidden_size + 1)


def masked_lm_flops(config: ElectraConfig, lengths: Sequence[int], drawn: int) -> int:
    """Of a training step of masked LM.

    Args:
        lengths: of the batch's sequences, in tokens.
        drawn: places that are predicted.
    """
    forward = encoder_flops(config, lengths) + generator_head_flops(config, drawn)
    return TRAINED * (forward + output_flops(config, drawn))


def filling_flops(generator: ElectraConfig, lengths: Sequence[int], drawn: int, *, frozen: bool) -> int:
    """Of a generator's part in a step: its own training, and the logits once more to sample from.

    Args:
        frozen: it is not trained; the forward pass alone.
    """
    forward = encoder_flops(generator, lengths) + generator_head_flops(generator, drawn)
    forward += output_flops(generator, drawn)
    return (1 if frozen else TRAINED) * forward + output_flops(generator, drawn)


def replaced_token_flops(
    generator: ElectraConfig,
    discriminator: ElectraConfig,
    lengths: Sequence[int],
    drawn: int,
    *,
    frozen: bool = False,
) -> int:
    """Of a training step of replaced-token detection, both halves."""
    judging = encoder_flops(discriminator, lengths) + judging_flops(discriminator, sum(lengths))
    return TRAINED * judging + filling_flops(generator, lengths, drawn, frozen=frozen)


def all_tokens_flops(
    generator: ElectraConfig, model: ElectraConfig, lengths: Sequence[int], drawn: int
) -> int:
    """Of a training step of all-tokens masked LM: logits at every token, made again in the backward pass."""
    tokens = sum(lengths)
    forward = encoder_flops(model, lengths) + generator_head_flops(model, tokens)
    forward += judging_flops(model, tokens)
    logits = (TRAINED + 1) * output_flops(model, tokens)
    return TRAINED * forward + logits + filling_flops(generator, lengths, drawn, frozen=False)


def electric_flops(
    noise: ElectraConfig, energy: ElectraConfig, lengths: Sequence[int], ordinary: int, drawn: int
) -> int:
    """Of a training step of Electric: two towers, q at every ordinary token, noise at the drawn ones.

    Causal attention is counted as the whole rectangle that is computed.
    """
    tokens = sum(lengths)
    joint = 2 * noise.embedding_size * noise.hidden_size
    tower = encoder_flops(noise, lengths) - (
        0 if noise.embedding_size == noise.hidden_size else tokens * joint
    )
    towers = tokens * joint + 2 * tower + 2 * generator_head_flops(noise, tokens)
    # q at the text's tokens, made again in the backward pass; at drawn places once to sample and once for q.
    logits = (TRAINED + 1) * output_flops(noise, ordinary) + 2 * output_flops(noise, drawn)
    judging = encoder_flops(energy, lengths) + judging_flops(energy, tokens)
    return TRAINED * (towers + judging) + logits
