"""What an ELECTRA's judgements rest on: arrays for one text, a list of ids with [CLS] and [SEP]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.electra.batch import check_length
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.model import ElectraBackbone, ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.plain import EncoderTrace, discriminator_logits, encode, generator_hidden, sequence_logits
from unmask.errors import UserError
from unmask.explain.head_removal import falls_without
from unmask.explain.integrated_gradients import STEPS, Array, integrated_gradients

#: From hidden states (batch, length, hidden_size) to one number a row of the batch.
Readout = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TextAttribution:
    """How a number is shared out among a text's tokens.

    Attributes:
        shares: (length,) in units of the output; 0 for the tokens kept in the baseline.
        output, baseline_output: the number for the text, and for one of padding.
        delta: what the shares' sum differs from output − baseline_output.
    """

    shares: Array
    output: float
    baseline_output: float
    delta: float


def label_logit(model: ElectraForSequenceClassification, label: int) -> Readout:
    """A classifier's logit of a label.

    Raises:
        UserError: no such label.
    """
    if not 0 <= label < len(model.config.labels):
        raise UserError(f"label {label} is none of the model's {len(model.config.labels)}")
    return lambda hidden: sequence_logits(model.sequence_head, hidden[:, 0])[:, label]


def replaced_logit(model: ElectraForPreTraining, place: int) -> Readout:
    """The discriminator's logit that the token at a place was replaced."""
    act = model.config.hidden_act
    return lambda hidden: discriminator_logits(model.discriminator_head, hidden[:, place], act)


def token_log_probability(model: ElectraForMaskedLM, place: int, token: int) -> Readout:
    """The generator's log-probability, in nats, of a token at a place."""

    def read(hidden: Tensor) -> Tensor:
        logits = model.logits(generator_hidden(model.generator_head, hidden[:, place]))
        return logits.log_softmax(-1)[:, token]

    return read


def attribute(
    model: ElectraBackbone,
    ids: Sequence[int],
    readout: Readout,
    *,
    padding: int,
    keep: Sequence[int] = (),
    types: Sequence[int] | None = None,
    steps: int = STEPS,
    before_pass: Callable[[], object] = lambda: None,
) -> TextAttribution:
    """Integrated gradients of a readout over the tokens' embeddings, positions and segments left as they are.

    Args:
        readout: what to share out: `label_logit`, `replaced_logit`, `token_log_probability`, or one's own.
        padding: the id that stands at every place of the baseline.
        keep: ids that stand in the baseline too: [CLS], [SEP], [MASK].
        types: the tokens' segments; None: all of the first.
        steps: of the integral.
        before_pass: see `integrated_gradients`.

    Raises:
        UserError: no ids, too many, an id outside of the vocabulary.
        MissingExtraError: captum is not installed.
    """
    check(model, ids)
    empty = [token if token in keep else padding for token in ids]
    segments = _segments(types)
    found = integrated_gradients(
        lambda words: readout(encode(model.encoder, words, types=segments)),
        (_words(model, ids),),
        (_words(model, empty),),
        steps=steps,
        before_pass=before_pass,
    )
    return TextAttribution(found.inputs[0], found.output, found.baseline_output, found.delta)


@torch.no_grad()
def attention(model: ElectraBackbone, ids: Sequence[int]) -> Array:
    """(layers, heads, length, length), rows that sum to 1.

    Raises:
        UserError: no ids, too many, an id outside of the vocabulary.
    """
    return torch.cat(_trace(model, ids).attention).double().numpy()


@torch.no_grad()
def head_importance(model: ElectraBackbone, ids: Sequence[int], readout: Readout) -> Array:
    """(layers, heads): how far the readout falls when a head's output is set to 0 (arXiv 1905.10650, 3.1).

    Raises:
        UserError: no ids, too many, an id outside of the vocabulary.
    """
    check(model, ids)
    config = model.config
    shape = (config.num_hidden_layers, config.num_attention_heads)
    words = _words(model, ids)

    def score(flat: Tensor) -> Tensor:
        gates = flat.unflatten(1, shape)
        return readout(encode(model.encoder, words.expand(len(flat), -1, -1), gates=gates))

    return falls_without(shape[0] * shape[1], score).unflatten(0, shape).numpy()


@torch.no_grad()
def suspicion(model: ElectraForPreTraining, ids: Sequence[int]) -> Array:
    """(layers, length): the probability that a token was replaced, by the discriminator's head on each layer.

    The last row is the discriminator's own; the ones before say where the suspicion arises (a logit lens).

    Raises:
        UserError: no ids, too many, an id outside of the vocabulary.
    """
    states = torch.cat(_trace(model, ids).states)
    logits = discriminator_logits(model.discriminator_head, states, model.config.hidden_act)
    return logits.double().sigmoid().numpy()


@torch.no_grad()
def label_lens(
    model: ElectraForSequenceClassification, ids: Sequence[int], types: Sequence[int] | None = None
) -> Array:
    """(layers, labels): the classifier's logits with its head on each layer's [CLS]; the last row is its own.

    Args:
        types: the tokens' segments; None: all of the first.

    Raises:
        UserError: no ids, too many, an id outside of the vocabulary.
    """
    states = torch.cat(_trace(model, ids, types).states)
    return sequence_logits(model.sequence_head, states[:, 0]).double().numpy()


@torch.no_grad()
def token_lens(model: ElectraForMaskedLM, ids: Sequence[int], place: int) -> Array:
    """(layers, vocab_size): probabilities of tokens at a place, with the generator's head on each layer.

    Raises:
        UserError: no ids, too many, an id outside of the vocabulary.
    """
    states = torch.cat(_trace(model, ids).states)[:, place]
    return model.logits(generator_hidden(model.generator_head, states)).double().softmax(-1).numpy()


def check(model: ElectraBackbone, ids: Sequence[int]) -> None:
    """Raises:
    UserError: no ids, more than the model's positions, an id outside of the vocabulary.
    """
    if not len(ids):
        raise UserError("the text is empty: there is nothing to explain")
    check_length(len(ids), model.config.max_position_embeddings)
    wrong = [token for token in ids if not 0 <= token < model.config.vocab_size]
    if wrong:
        raise UserError(f"the text has the id {wrong[0]}; the model knows {model.config.vocab_size}, from 0")


def _trace(model: ElectraBackbone, ids: Sequence[int], types: Sequence[int] | None = None) -> EncoderTrace:
    check(model, ids)
    trace = EncoderTrace()
    encode(model.encoder, _words(model, ids), types=_segments(types), trace=trace)
    return trace


def _segments(types: Sequence[int] | None) -> Tensor | None:
    """(1, length) int64."""
    return None if types is None else torch.tensor([list(types)])


def _words(model: ElectraBackbone, ids: Sequence[int]) -> Tensor:
    """(1, length, embedding_size)."""
    return F.embedding(torch.tensor([list(ids)]), model.encoder.embeddings.token.weight).detach()
