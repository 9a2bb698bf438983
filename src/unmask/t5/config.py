"""The shape of a T5 model, as the Hub's config.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from unmask.errors import UserError

#: Feed-forward forms: name on disk → (activation, gated). "gated-gelu" is the tanh form of GELU (T5 v1.1).
FEED_FORWARDS = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gated-relu": ("relu", True),
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
}


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """Sizes and switches of a T5 model; the defaults are t5-small v1.0's.

    Attributes:
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
            None means where tied, as in v1.0.
        initializer_factor: multiplies every initial standard deviation.
    """

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

    def __post_init__(self) -> None:
        if self.feed_forward_proj not in FEED_FORWARDS:
            raise UserError(
                f"feed_forward_proj {self.feed_forward_proj!r} is not one of {', '.join(FEED_FORWARDS)}"
            )
        for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.num_decoder_layers is None:
            object.__setattr__(self, "num_decoder_layers", self.num_layers)
        if self.scale_decoder_outputs is None:
            object.__setattr__(self, "scale_decoder_outputs", self.tie_word_embeddings)

    @property
    def decoder_layers(self) -> int:
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    @classmethod
    def from_hub(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """From the content of a Hub config.json; keys that do not shape the model are ignored.

        Raises:
            UserError: another family's config, or a value that this implementation does not know.
        """
        kind = values.get("model_type", "t5")
        if kind != "t5":
            raise UserError(f"{where} is of model type {kind!r}, not t5")
        known = {
            field.name: values[field.name]
            for field in fields(cls)
            if field.name in values and values[field.name] is not None
        }
        try:
            return cls(**known)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except TypeError as error:
            raise UserError(f"{where}: a value has the wrong type: {error}") from None

    def to_hub(self) -> dict[str, Any]:
        """What config.json holds, as Transformers writes it."""
        return asdict(self) | {"model_type": "t5", "is_encoder_decoder": True, "use_cache": True}
