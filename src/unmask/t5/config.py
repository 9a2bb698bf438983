"""The shape of a T5 model and of its descendants, as the Hub's config.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from unmask import hub
from unmask.errors import UserError
from unmask.settings import check_types


@dataclass(frozen=True)
class Kind:
    """What sets a model type of the Hub apart from T5.

    Attributes:
        prefix: of its class names in Transformers.
        bias_per_layer: every layer has a position bias of its own (umT5, arXiv 2304.09151).
        scaled_where_tied: a tied output matrix sees the decoder's output times d_model^-0.5.
    """

    prefix: str
    bias_per_layer: bool = False
    scaled_where_tied: bool = True


#: LM-adapted T5, FLAN-T5, ByT5 and UL2 are of type t5: their sizes and feed-forward say the rest.
KINDS = {
    "t5": Kind("T5"),
    "mt5": Kind("MT5", scaled_where_tied=False),
    "umt5": Kind("UMT5", bias_per_layer=True),
}

#: Feed-forward forms: name on disk → (activation, gated). "gated-gelu" is the tanh form of GELU (T5 v1.1).
FEED_FORWARDS = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gelu_new": ("gelu_tanh", False),
    "silu": ("silu", False),
    "gated-relu": ("relu", True),
    "gated-gelu": ("gelu_tanh", True),
    "gated-gelu_new": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
}
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
#: Fields that are numbers of something.
_COUNTS = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "relative_attention_num_buckets",
)


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """Sizes and switches of a T5 model; the defaults are t5-small v1.0's.

    Attributes:
        model_type: one of KINDS.
        vocab_size: rows of the embedding; 32,128 for the published models, of which 32,100 are tokens.
        d_model: width of the residual stream.
        d_kv: width of one attention head.
        d_ff: inner width of the feed-forward.
        num_layers: encoder layers.
        num_decoder_layers: decoder layers; None means as many as the encoder has.
        num_heads: attention heads.
        feed_forward_proj: one of FEED_FORWARDS; "relu" is v1.0, "gated-gelu" v1.1.
        tie_word_embeddings: the output matrix is the token embedding.
        scale_decoder_outputs: multiply the decoder's output by d_model^-0.5 before the output matrix;
            None means where tied, as in v1.0 (never in mT5).
        initializer_factor: multiplies every initial standard deviation.
        classifier_dropout: in classification heads.
        labels: names of a classification head's outputs, in their order; one for regression.
        problem_type: one of PROBLEM_TYPES, or None to settle it by the labels that are given.
    """

    model_type: str = "t5"
    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0
    classifier_dropout: float = 0.0
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    problem_type: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.model_type not in KINDS:
            raise UserError(f"model type {self.model_type!r} is not one of {', '.join(KINDS)}")
        if self.feed_forward_proj not in FEED_FORWARDS:
            raise UserError(
                f"feed_forward_proj {self.feed_forward_proj!r} is not one of {', '.join(FEED_FORWARDS)}"
            )
        if self.num_decoder_layers is None:
            object.__setattr__(self, "num_decoder_layers", self.num_layers)
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.scale_decoder_outputs is None:
            scaled = self.tie_word_embeddings and self.kind.scaled_where_tied
            object.__setattr__(self, "scale_decoder_outputs", scaled)
        if self.problem_type not in (None, *PROBLEM_TYPES):
            raise UserError(f"problem_type {self.problem_type!r} is not one of {', '.join(PROBLEM_TYPES)}")
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise UserError(f"labels {list(self.labels)} must be at least one name, none of them twice")

    @property
    def kind(self) -> Kind:
        return KINDS[self.model_type]

    @property
    def decoder_layers(self) -> int:
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    @classmethod
    def from_hub(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """From the content of a Hub config.json; keys that do not shape the model are ignored.

        Raises:
            UserError: another family's config, or a value that this implementation does not know.
        """
        known = {
            field.name: values[field.name]
            for field in fields(cls)
            if field.name in values and values[field.name] is not None
        }
        known["labels"] = hub.read_labels(values, where)
        try:
            return cls(**known)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    def to_hub(self) -> dict[str, Any]:
        """What config.json holds, as Transformers writes it."""
        values = asdict(self) | {"is_encoder_decoder": True, "use_cache": True}
        labels = values.pop("labels")
        # As Transformers: a model that was never given labels does not speak of them.
        return values if labels == T5Config.labels else values | hub.label_entries(labels)
