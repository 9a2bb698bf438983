"""ELECTRA for labels, answers, choices and embeddings (as Transformers builds and stores them).

Every head reads one encoder. Where a text as a whole is judged, its first token, [CLS], speaks for it, also where
the padding is on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.electra import checkpoint
from unmask.electra.batch import Rows
from unmask.electra.config import ElectraConfig
from unmask.electra.model import (
    ElectraBackbone,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraOutput,
    cross_entropy,
)
from unmask.errors import UserError
from unmask.nn.dropout import Dropout
from unmask.nn.ids import check_labels
from unmask.nn.losses import classification_loss, span_loss
from unmask.nn.ragged import Layout

#: How a text's token vectors become one vector.
Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class ElectraHidden:
    """What a bare encoder returns.

    Attributes:
        last_hidden_state: (batch, width, hidden_size), zeros on padding.
    """

    last_hidden_state: Tensor


@dataclass(frozen=True)
class SpanOutput:
    """What a span finder returns.

    Attributes:
        start_logits, end_logits: (batch, width), -inf on padding.
        loss: the mean of the two cross-entropies, in nats; None without positions.
    """

    start_logits: Tensor
    end_logits: Tensor
    loss: Tensor | None


class DenseHead(nn.Module):
    """Transformers' classification head: dropout, dense, GELU, dropout, dense."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.num_labels)
        self.dropout = Dropout(config.head_dropout)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """(n, hidden_size) → (n, labels); places (n,) are what the dropout's masks depend on."""
        inner = F.gelu(self.dense(self.dropout(x, places)))
        return self.output(self.dropout(inner, places))


class LinearHead(nn.Module):
    """Dropout and one linear layer: the paper's head for texts, and the head for tokens."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden_size, config.num_labels)
        self.dropout = Dropout(config.head_dropout)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """(n, hidden_size) → (n, labels); places (n,) are what the dropout's masks depend on."""
        return self.linear(self.dropout(x, places))


class ChoiceHead(nn.Module):
    """dense, GELU, dropout, one number: Transformers' `sequence_summary` and `classifier`."""

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, 1)
        self.dropout = Dropout(config.summary_last_dropout)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """(n, hidden_size) → (n,); places as of `DenseHead`."""
        return self.output(self.dropout(F.gelu(self.dense(x)), places)).squeeze(-1)


class ElectraModel(ElectraBackbone):
    """The encoder alone: hidden states of tokens, embeddings of texts."""

    architecture = "ElectraModel"

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.initialise()

    @staticmethod
    def hub_name(name: str) -> str:
        return checkpoint.hub_name(name).removeprefix("electra.")

    @classmethod
    def prepare(cls, config: ElectraConfig, weights: dict[str, Tensor]) -> ElectraConfig:
        checkpoint.settle(weights)
        for name in list(weights):
            weights[name.removeprefix("electra.")] = weights.pop(name)
        return config

    def forward(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        token_type_ids: Rows | None = None,
    ) -> ElectraHidden:
        """Hidden states (batch, width, hidden_size); arguments as for `ElectraForMaskedLM`."""
        batch = self.pack(input_ids, attention_mask, token_type_ids)
        return ElectraHidden(batch.packed.spread(self.encode(batch)))

    def embed(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        token_type_ids: Rows | None = None,
        *,
        pooling: Pooling = "mean",
        normalise: bool = True,
    ) -> Tensor:
        """One vector a text, in the order given: (batch, hidden_size) float32.

        Args:
            input_ids, attention_mask, token_type_ids: as for `ElectraForMaskedLM`.
            pooling: "mean" of the token vectors, [CLS] and [SEP] counted, or the vector of [CLS], "cls".
            normalise: to length 1, so that a product of two vectors is their cosine.

        Raises:
            UserError: another pooling.
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids)
        if pooling == "cls":
            vectors = self.encode_first(batch).float()
        elif pooling == "mean":
            vectors = _mean(self.encode(batch).float(), batch.packed.layout)
        else:
            raise UserError(f"pooling={pooling!r} is unknown: use 'mean' or 'cls'")
        return F.normalize(vectors, dim=-1) if normalise else vectors


def _mean(hidden: Tensor, layout: Layout) -> Tensor:
    lengths = torch.tensor(layout.lengths, device=hidden.device)
    rows = torch.arange(layout.batch, device=hidden.device).repeat_interleave(lengths)
    sums = hidden.new_zeros(layout.batch, hidden.shape[1]).index_add(0, rows, hidden)
    return sums / lengths[:, None]


class ElectraForSequenceClassification(ElectraBackbone):
    """One label, several labels or numbers for a whole text; `config.classification_head` says by which head."""

    architecture = "ElectraForSequenceClassification"
    fresh_heads = ("sequence_head.",)
    glorot = ("encoder.projection", "sequence_head.dense", "sequence_head.output", "sequence_head.linear")

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        linear = config.classification_head == "linear"
        self.sequence_head = LinearHead(config) if linear else DenseHead(config)
        self.initialise()

    def sequence_logits(self, ids: Tensor, layout: Layout, types: Tensor | None = None) -> Tensor:
        """A packed stream → (batch, labels)."""
        return self.sequence_head(self.encoder.first_tokens(ids, layout, types), layout.row_places)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss over the batch, as Transformers defines it.

        Args:
            logits: (batch, labels).
            labels: (batch,) int64 classes; (batch,) or (batch, labels) numbers for regression; or
                (batch, labels) of 0 and 1 where several can hold. `config.problem_type` says which; where it
                is None, one label means regression, integers mean classes, anything else several labels.
        """
        return classification_loss(logits, labels, self.config.problem_type)

    def forward(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        token_type_ids: Rows | None = None,
        labels: Any = None,
    ) -> ElectraOutput:
        """Logits (batch, labels).

        Args:
            input_ids, attention_mask, token_type_ids: as for `ElectraForMaskedLM`.
            labels: see `loss`; a tensor or a list.
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids)
        logits = self.sequence_head(self.encode_first(batch), batch.packed.layout.row_places)
        loss = None
        if labels is not None:
            loss = self.loss(logits, torch.as_tensor(labels, device=logits.device))
        return ElectraOutput(logits, loss)


class ElectraForTokenClassification(ElectraBackbone):
    """A label for each token."""

    architecture = "ElectraForTokenClassification"
    fresh_heads = ("token_head.",)
    glorot = ("encoder.projection", "token_head.linear")

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.token_head = LinearHead(config)
        self.initialise()

    def token_logits(self, ids: Tensor, layout: Layout, types: Tensor | None = None) -> Tensor:
        """A packed stream → (total, labels)."""
        return self.token_head(self.encoder(ids, layout, types), layout.places)

    def forward(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        token_type_ids: Rows | None = None,
        labels: Rows | None = None,
    ) -> ElectraOutput:
        """Logits (batch, width, labels).

        Args:
            input_ids, attention_mask, token_type_ids: as for `ElectraForMaskedLM`.
            labels: as input_ids, -100 on tokens without one. The loss is the mean over the others.
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids)
        logits = self.token_head(self.encode(batch), batch.packed.layout.places)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, batch.select(labels, "labels"))
        return ElectraOutput(batch.packed.spread(logits), loss)


class ElectraForQuestionAnswering(ElectraBackbone):
    """The first and the last token of an answer; texts of any length: `unmask.electra.answering`."""

    architecture = "ElectraForQuestionAnswering"
    fresh_heads = ("span_head.",)
    glorot = ("encoder.projection", "span_head")

    def __init__(self, config: ElectraConfig) -> None:
        # Two outputs, start and end, whatever labels another head of the same checkpoint had.
        super().__init__(replace(config, labels=("LABEL_0", "LABEL_1")))
        self.span_head = nn.Linear(config.hidden_size, 2)
        self.initialise()

    def span_logits(self, ids: Tensor, layout: Layout, types: Tensor | None = None) -> Tensor:
        """A packed stream → (total, 2): a start's and an end's."""
        return self.span_head(self.encoder(ids, layout, types))

    def span_loss(self, ids: Tensor, layout: Layout, types: Tensor | None, spans: Tensor) -> Tensor:
        """The mean of the two cross-entropies, in nats.

        Args:
            ids, layout, types: a packed stream.
            spans: (batch, 2) int64: in each sequence the first and the last token of the answer.
        """
        seen = layout.pad(torch.ones_like(ids)) != 0
        logits = layout.pad(self.span_logits(ids, layout, types))
        start, end = logits.masked_fill(~seen[..., None], float("-inf")).unbind(-1)
        return span_loss(start, end, seen, *spans.unbind(1))

    def forward(
        self,
        input_ids: Rows,
        attention_mask: Tensor | None = None,
        token_type_ids: Rows | None = None,
        start_positions: Any = None,
        end_positions: Any = None,
    ) -> SpanOutput:
        """Logits (batch, width) of starts and of ends.

        Args:
            input_ids, attention_mask, token_type_ids: as for `ElectraForMaskedLM`.
            start_positions, end_positions: (batch,) columns of input_ids; one that is not on a token (the
                answer was cut off) does not count.
        """
        batch = self.pack(input_ids, attention_mask, token_type_ids)
        packed = batch.packed
        logits = packed.spread(self.span_head(self.encode(batch)))
        seen = packed.spread(torch.ones_like(packed.ids)) != 0
        start, end = logits.masked_fill(~seen[..., None], float("-inf")).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            starts, ends = (torch.as_tensor(p, device=seen.device) for p in (start_positions, end_positions))
            loss = span_loss(start, end, seen, starts, ends)
        return SpanOutput(start, end, loss)


#: (batch, choices, width); or for each example one list of ids a choice.
Choices = Tensor | Sequence[Sequence[Sequence[int]]]


class ElectraForMultipleChoice(ElectraBackbone):
    """Which of several continuations? Each is read with its question, and judged by one number."""

    architecture = "ElectraForMultipleChoice"
    fresh_heads = ("choice_head.",)
    glorot = ("encoder.projection", "choice_head.dense", "choice_head.output")

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__(config)
        self.choice_head = ChoiceHead(config)
        self.initialise()

    def choice_logits(self, ids: Tensor, layout: Layout, types: Tensor | None = None) -> Tensor:
        """A packed stream, one sequence a choice → (batch,)."""
        return self.choice_head(self.encoder.first_tokens(ids, layout, types), layout.row_places)

    @staticmethod
    def by_example(logits: Tensor, counts: Sequence[int]) -> Tensor:
        """(choices of all examples,) → (batch, most choices), -inf where an example has fewer."""
        rows = logits.new_full((len(counts), max(counts)), float("-inf"))
        for row, (first, last) in enumerate(pairwise(accumulate(counts, initial=0))):
            rows[row, : last - first] = logits[first:last]
        return rows

    def forward(
        self,
        input_ids: Choices,
        attention_mask: Tensor | None = None,
        token_type_ids: Choices | None = None,
        labels: Any = None,
    ) -> ElectraOutput:
        """Logits (batch, most choices), -inf where an example has fewer.

        Args:
            input_ids: (batch, choices, width) int64, padded on either side; or lists, of any number of choices
                for each example and any length for each choice.
            attention_mask: (batch, choices, width), nonzero on tokens; None: everything is a token.
            token_type_ids: as input_ids.
            labels: (batch,) number of the right choice. The loss is the mean cross-entropy.
        """
        counts = [len(example) for example in input_ids]
        if min(counts, default=0) < 1:
            raise UserError("every example needs at least one choice")
        mask = None if attention_mask is None else attention_mask.flatten(0, 1)
        types = None if token_type_ids is None else _side_by_side(token_type_ids)
        batch = self.pack(_side_by_side(input_ids), mask, types)
        places = batch.packed.layout.row_places
        logits = self.by_example(self.choice_head(self.encode_first(batch), places), counts)
        loss = None
        if labels is not None:
            given = check_labels(torch.as_tensor(labels, device=logits.device), logits)
            loss = F.cross_entropy(logits.float(), given)
        return ElectraOutput(logits, loss)


def _side_by_side(choices: Choices) -> Rows:
    return choices.flatten(0, 1) if isinstance(choices, Tensor) else list(chain.from_iterable(choices))


#: Every ELECTRA, with its head or without one, by the Hub's name.
ELECTRAS: dict[str, type[ElectraBackbone]] = {
    model.architecture: model
    for model in (
        ElectraModel,
        ElectraForPreTraining,
        ElectraForMaskedLM,
        ElectraForSequenceClassification,
        ElectraForTokenClassification,
        ElectraForQuestionAnswering,
        ElectraForMultipleChoice,
    )
}
