"""What a T5's output rests on: arrays for one source and one target.

Source and target are lists of ids, as the tokenizer makes them (`</s>` at the end of the source). The target's token
t is written after the prefix start, target[0], …, target[t−1]; "written prefix" always means that. Decoding is causal,
so one pass over the whole target gives what every step of writing it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unmask.errors import UserError
from unmask.explain.head_removal import falls_without
from unmask.explain.integrated_gradients import STEPS, Array, integrated_gradients
from unmask.nn.relative_position import RelativePositionBias
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.plain import Gates, StackTrace, decode, encode

#: Passes the target's places through, to show progress.
Watch = Callable[[Sequence[int]], Iterable[int]]


def prefix_of(model: T5ForConditionalGeneration, target: Sequence[int]) -> list[int]:
    """What the decoder reads while it writes a target: the start token, then all but the target's last."""
    return [model.config.decoder_start_token_id, *target[:-1]]


@dataclass(frozen=True)
class TokenAttribution:
    """Why one target token: shares of its log-probability, in nats, against a source and prefix of padding.

    Attributes:
        source: (source length,).
        prefix: (t + 1,) of start token and the target's tokens before this one. The start token is its own
            baseline wherever T5 starts with padding, and has the share 0 there.
        output, baseline_output: the log-probability, and what it is without source and prefix.
        delta: what the shares' sum differs from output − baseline_output.
    """

    source: Array
    prefix: Array
    output: float
    baseline_output: float
    delta: float


def attribute_token(
    model: T5ForConditionalGeneration,
    source: Sequence[int],
    target: Sequence[int],
    place: int,
    *,
    steps: int = STEPS,
    before_pass: Callable[[], object] = lambda: None,
) -> TokenAttribution:
    """Integrated gradients of log p(target[place] | source, prefix), over source and prefix.

    The two streams are separate inputs, though they are rows of one embedding: what the source contributes through the
    encoder, and what the prefix does through the decoder. The baseline has the padding's embedding at every place but
    the source's `</s>`, which stands at every source's end.

    Args:
        place: 0 is the target's first token.
        steps: of the integral.
        before_pass: see `integrated_gradients`.

    Raises:
        UserError: no source or target, no such place.
        MissingExtraError: captum is not installed.
    """
    check(model, source, target)
    if not 0 <= place < len(target):
        raise UserError(f"place {place} is none of the target's {len(target)} tokens")
    config = model.config
    prefix = prefix_of(model, target[: place + 1])
    empty_source = [token if token == config.eos_token_id else config.pad_token_id for token in source]
    empty_prefix = [config.pad_token_id] * len(prefix)

    def log_probability(of_source: Tensor, of_prefix: Tensor) -> Tensor:
        hidden = decode(model, of_prefix, encode(model, of_source))[:, -1]
        return F.linear(hidden, model.output_weight).log_softmax(-1)[:, target[place]]

    found = integrated_gradients(
        log_probability,
        (_embedded(model, source), _embedded(model, prefix)),
        (_embedded(model, empty_source), _embedded(model, empty_prefix)),
        steps=steps,
        before_pass=before_pass,
    )
    of_source, of_prefix = found.inputs
    return TokenAttribution(of_source, of_prefix, found.output, found.baseline_output, found.delta)


@dataclass(frozen=True)
class TargetAttribution:
    """`TokenAttribution`s of every target token, as arrays.

    Attributes:
        source: (target length, source length).
        prefix: (target length, target length): column 0 is the start token, column j the target's token j − 1; 0 where
            a token was not yet written.
        output, baseline_output, delta: (target length,).
    """

    source: Array
    prefix: Array
    output: Array
    baseline_output: Array
    delta: Array


def attribute(
    model: T5ForConditionalGeneration,
    source: Sequence[int],
    target: Sequence[int],
    *,
    steps: int = STEPS,
    watch: Watch = iter,
    before_pass: Callable[[], object] = lambda: None,
) -> TargetAttribution:
    """`attribute_token` for every token of a target.

    Args:
        watch: passes the target's places through, to show progress.
        before_pass: see `integrated_gradients`.

    Raises:
        UserError, MissingExtraError: as there.
    """
    check(model, source, target)
    places = watch(range(len(target)))
    found = [
        attribute_token(model, source, target, place, steps=steps, before_pass=before_pass)
        for place in places
    ]
    prefix = np.zeros((len(target), len(target)))
    for place, token in enumerate(found):
        prefix[place, : place + 1] = token.prefix
    return TargetAttribution(
        np.stack([token.source for token in found]),
        prefix,
        np.array([token.output for token in found]),
        np.array([token.baseline_output for token in found]),
        np.array([token.delta for token in found]),
    )


@dataclass(frozen=True)
class Attention:
    """Attention weights while a target is written; every row sums to 1.

    Attributes:
        encoder: (layers, heads, source length, source length).
        decoder: (layers, heads, target length, target length): row t is the step that wrote token t, columns are the
            prefix, start token first.
        cross: (layers, heads, target length, source length).
    """

    encoder: Array
    decoder: Array
    cross: Array


@torch.no_grad()
def attention(model: T5ForConditionalGeneration, source: Sequence[int], target: Sequence[int]) -> Attention:
    """Every attention map of the pass, the decoder's stitched over the steps.

    Raises:
        UserError: no source or target, an id outside of the vocabulary.
    """
    below, above = _traces(model, source, target)
    return Attention(_stack(below.attention), _stack(above.attention), _stack(above.cross_attention))


@dataclass(frozen=True)
class HeadImportance:
    """What removing a head costs: the fall of the target's log-likelihood, in nats; below 0 where it rises.

    Attributes:
        encoder, decoder, cross: (layers, heads).
    """

    encoder: Array
    decoder: Array
    cross: Array


@torch.no_grad()
def head_importance(
    model: T5ForConditionalGeneration, source: Sequence[int], target: Sequence[int]
) -> HeadImportance:
    """Remove each head in turn (its output is set to 0; Michel et al., arXiv 1905.10650, 3.1) and score the target.

    Raises:
        UserError: no source or target, an id outside of the vocabulary.
    """
    check(model, source, target)
    config = model.config
    sizes = [config.num_layers, config.decoder_layers, config.decoder_layers]
    counts = [layers * config.num_heads for layers in sizes]

    def score(flat: Tensor) -> Tensor:
        parts = [part.unflatten(1, (-1, config.num_heads)) for part in flat.split(counts, dim=1)]
        return _log_likelihood(model, source, target, Gates(*parts))

    parts = falls_without(sum(counts), score).split(counts)
    return HeadImportance(*(part.unflatten(0, (-1, config.num_heads)).numpy() for part in parts))


def _log_likelihood(
    model: T5ForConditionalGeneration, source: Sequence[int], target: Sequence[int], gates: Gates
) -> Tensor:
    """(batch,) in nats, one for each row of gates."""
    batch = gates.encoder.shape[0]
    below = encode(model, _embedded(model, source).expand(batch, -1, -1), gates=gates.encoder)
    hidden = decode(
        model, _embedded(model, prefix_of(model, target)).expand(batch, -1, -1), below, gates=gates
    )
    wanted = torch.tensor(target).expand(batch, -1)
    return F.linear(hidden, model.output_weight).log_softmax(-1).gather(2, wanted[..., None]).sum((1, 2))


@dataclass(frozen=True)
class Lens:
    """What each layer would write (the logit lens: nostalgebraist 2020).

    Attributes:
        likeliest: (layers, target length) int64 ids.
        likeliest_probability: (layers, target length).
        target_probability: (layers, target length), of the token that was written.
    """

    likeliest: NDArray[np.int64]
    likeliest_probability: Array
    target_probability: Array


@torch.no_grad()
def logit_lens(model: T5ForConditionalGeneration, source: Sequence[int], target: Sequence[int]) -> Lens:
    """Read the residual stream after each decoder layer by the final norm and the output matrix.

    The last layer's row is the model's own output.

    Raises:
        UserError: no source or target, an id outside of the vocabulary.
    """
    _, above = _traces(model, source, target)
    states = torch.cat(above.states)
    hidden = model.scaled(model.decoder.final_norm(states))
    shares = F.linear(hidden, model.output_weight).double().softmax(-1)
    best, ids = shares.max(-1)
    wanted = torch.tensor(target).expand(len(states), -1)[..., None]
    return Lens(ids.numpy(), best.numpy(), shares.gather(2, wanted)[..., 0].numpy())


@torch.no_grad()
def position_bias(bias: RelativePositionBias, reach: int) -> tuple[NDArray[np.int64], Array]:
    """What a stack adds to attention scores by distance alone.

    Args:
        bias: of `model.encoder.position_biases` or the decoder's.
        reach: the longest distance.

    Returns:
        (n,) distances, key position minus query position (none after the query in a decoder); (heads, n) biases.
    """
    last = reach if bias.bidirectional else 0
    distances = torch.arange(-reach, last + 1)
    return distances.numpy(), bias.between(torch.zeros(1, dtype=torch.long), distances)[:, 0].double().numpy()


def check(model: T5ForConditionalGeneration, source: Sequence[int], target: Sequence[int]) -> None:
    """Raises:
    UserError: no source or target, an id outside of the vocabulary.
    """
    for name, ids in (("source", source), ("target", target)):
        if not len(ids):
            raise UserError(f"the {name} is empty: there is nothing to explain")
        wrong = [token for token in ids if not 0 <= token < model.config.vocab_size]
        if wrong:
            raise UserError(
                f"the {name} has the id {wrong[0]}; the model knows {model.config.vocab_size}, from 0"
            )


def _traces(
    model: T5ForConditionalGeneration, source: Sequence[int], target: Sequence[int]
) -> tuple[StackTrace, StackTrace]:
    check(model, source, target)
    below, above = StackTrace(), StackTrace()
    hidden = encode(model, _embedded(model, source), trace=below)
    decode(model, _embedded(model, prefix_of(model, target)), hidden, trace=above)
    return below, above


def _embedded(model: T5ForConditionalGeneration, ids: Sequence[int]) -> Tensor:
    """(1, length, d_model)."""
    return model.embedding(torch.tensor([list(ids)])).detach()


def _stack(maps: Sequence[Tensor]) -> Array:
    """(1, heads, …) of each layer → (layers, heads, …)."""
    return torch.cat(list(maps)).double().numpy()
