"""T5 for labels instead of text: whole texts, tokens, spans (as Transformers builds and stores them).

The head for tokens reads the encoder and builds no decoder. The heads for texts and spans read the decoder,
which is given the input itself, moved by one behind the start token. Both streams are packed, so the result
for a text does not depend on its padding; Transformers' does where it is on the left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.nn.dropout import Dropout
from unmask.nn.ids import check_labels
from unmask.nn.losses import classification_loss, span_loss
from unmask.nn.ragged import Layout
from unmask.t5.config import T5Config
from unmask.t5.model import IGNORED_LABEL, T5Backbone


@dataclass(frozen=True)
class ClassifierOutput:
    """What a classifier returns.

    Attributes:
        logits: (batch, labels) of texts, (batch, length, labels) of tokens with zeros on padding.
        loss: the mean over the batch (over labelled tokens), in nats where labels are classes; None without.
    """

    logits: Tensor
    loss: Tensor | None


@dataclass(frozen=True)
class SpanOutput:
    """What a span finder returns.

    Attributes:
        start_logits, end_logits: (batch, length), -inf on padding.
        loss: the mean of the two cross-entropies, in nats; None without positions.
    """

    start_logits: Tensor
    end_logits: Tensor
    loss: Tensor | None


class SequenceHead(nn.Module):
    """output(tanh(dense(x))), with dropout before each matrix."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.output = nn.Linear(config.d_model, len(config.labels))
        self.dropout = Dropout(config.classifier_dropout)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """(n, d_model) → (n, labels); places (n,) are what the dropout's masks depend on."""
        inner = torch.tanh(self.dense(self.dropout(x, places)))
        return self.output(self.dropout(inner, places))


class T5ForSequenceClassification(T5Backbone):
    """One label, several labels or numbers for a whole text, read off the decoder at the last `</s>`."""

    architecture = "T5ForSequenceClassification"
    backbone = "transformer."
    fresh_heads = ("sequence_head.",)

    def __init__(self, config: T5Config) -> None:
        super().__init__(config, with_decoder=True)
        self.sequence_head = SequenceHead(config)
        self.initialise()

    def sequence_logits(self, ids: Tensor, layout: Layout) -> Tensor:
        """Packed ids (total,), `</s>` in every sequence → (batch, labels).

        Raises:
            UserError: a sequence without `</s>`.
        """
        hidden = self.decode(self.shift_right(ids, layout), layout, self.encode(ids, layout), layout)
        ends = self._last_ends(ids, layout)
        return self.sequence_head(hidden.index_select(0, ends), layout.row_places)

    def _last_ends(self, ids: Tensor, layout: Layout) -> Tensor:
        """(batch,): the place of each sequence's last `</s>` in the stream."""
        places = torch.arange(1, layout.total + 1, device=ids.device)
        last = layout.pad(places * (ids == self.config.eos_token_id)).amax(1) - 1
        if bool((last < 0).any()):
            row = int((last < 0).nonzero()[0])
            raise UserError(
                f"row {row} has no </s> (id {self.config.eos_token_id}), which speaks for the text: "
                "end every text with it"
            )
        return last

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> ClassifierOutput:
        """Classify a padded batch.

        Args:
            input_ids: (batch, length) int64, each row ending in `</s>`.
            attention_mask: (batch, length), nonzero on tokens, one run of them in each row; None: all.
            labels: see `unmask.nn.losses.classification_loss`; `config.problem_type` says what they mean.
        """
        packed = self.pack(input_ids, attention_mask)
        logits = self.sequence_logits(packed.ids, packed.layout)
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        return ClassifierOutput(logits, loss)


class T5ForTokenClassification(T5Backbone):
    """A label for each token, read off the encoder."""

    architecture = "T5ForTokenClassification"
    backbone = "transformer."
    fresh_heads = ("token_head.",)

    def __init__(self, config: T5Config) -> None:
        super().__init__(config, with_decoder=False)
        self.token_head = nn.Linear(config.d_model, len(config.labels))
        self.dropout = Dropout(config.classifier_dropout)
        self.initialise()

    def token_logits(self, ids: Tensor, layout: Layout) -> Tensor:
        """Packed ids (total,) → (total, labels)."""
        return self.token_head(self.dropout(self.encode(ids, layout), layout.places))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> ClassifierOutput:
        """Label the tokens of a padded batch.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), nonzero on tokens, one run of them in each row; None: all.
            labels: (batch, length) int64, -100 where a token does not count.
        """
        packed = self.pack(input_ids, attention_mask)
        logits = packed.spread(self.token_logits(packed.ids, packed.layout))
        loss = None
        if labels is not None:
            rows = logits.flatten(0, 1).float()
            known = check_labels(labels, rows, ignored=IGNORED_LABEL)
            loss = F.cross_entropy(rows, known, ignore_index=IGNORED_LABEL)
        return ClassifierOutput(logits, loss)


class T5ForQuestionAnswering(T5Backbone):
    """The first and the last token of an answer, read off the decoder."""

    architecture = "T5ForQuestionAnswering"
    fresh_heads = ("span_head.",)

    def __init__(self, config: T5Config) -> None:
        super().__init__(config, with_decoder=True)
        self.span_head = nn.Linear(config.d_model, 2)
        self.initialise()

    @classmethod
    def prepare(cls, config: T5Config, weights: dict[str, Tensor]) -> T5Config:
        """Two outputs, start and end, whatever labels another head of the same checkpoint had."""
        return replace(super().prepare(config, weights), labels=("LABEL_0", "LABEL_1"))

    def span_logits(self, ids: Tensor, layout: Layout) -> Tensor:
        """Packed ids (total,) → (total, 2): a start's and an end's."""
        hidden = self.decode(self.shift_right(ids, layout), layout, self.encode(ids, layout), layout)
        return self.span_head(hidden)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
    ) -> SpanOutput:
        """Find answers in a padded batch.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), nonzero on tokens, one run of them in each row; None: all.
            start_positions, end_positions: (batch,) int64 columns of input_ids; one that is not on a token
                (the answer was cut off) does not count.
        """
        packed = self.pack(input_ids, attention_mask)
        logits = packed.spread(self.span_logits(packed.ids, packed.layout))
        seen = packed.spread(torch.ones_like(packed.ids))
        start, end = logits.masked_fill(seen[..., None] == 0, float("-inf")).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start, end, seen, start_positions, end_positions)
        return SpanOutput(start, end, loss)
