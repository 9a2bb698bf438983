"""The shape of an ELECTRA model, as the Hub's config.json holds it, and the published shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from unmask import hub
from unmask.errors import UserError
from unmask.settings import check_types

#: Activations: name on disk → the form that the model file knows. "gelu" is the exact one, by erf.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
}
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
#: Keys of other architectures that share this file format, with the one value that means "as ELECTRA".
_FIXED = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    # How Transformers builds a multiple-choice head.
    "summary_type": "first",
    "summary_use_proj": True,
    "summary_activation": "gelu",
}
#: Sizes that a BERT's config.json may leave out, where they differ from this family's (Transformers' defaults).
_BERT_DEFAULTS = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
#: Heads for whole texts: Transformers' (dense, GELU, dropout, dense), and the paper's single linear layer.
CLASSIFICATION_HEADS = ("dense", "linear")


@dataclass(frozen=True, kw_only=True)
class ElectraConfig:
    """Sizes and switches of one ELECTRA encoder and its head; the defaults are ELECTRA-Small's discriminator.

    Attributes:
        vocab_size: rows of the token embedding.
        embedding_size: width of the embeddings; a linear layer joins it to `hidden_size` where they differ.
        hidden_size: width of the layers, a multiple of `num_attention_heads`.
        intermediate_size: inner width of the feed-forward.
        hidden_act: one of ACTIVATIONS, in the layers and in the discriminator's head.
        hidden_dropout_prob: on the embeddings and on each sub-layer's output.
        attention_probs_dropout_prob: on attention weights.
        classifier_dropout: in classification heads; None means `hidden_dropout_prob`.
        max_position_embeddings: the longest sequence, in tokens.
        type_vocab_size: kinds of segment.
        initializer_range: standard deviation of the truncated normal that weights are drawn from.
        tie_word_embeddings: the generator's output matrix is the token embedding.
        labels: names of a classification head's outputs, in their order; one for regression.
        problem_type: one of PROBLEM_TYPES, or None to settle it by the labels that are given.
        classification_head: one of CLASSIFICATION_HEADS, of a classifier of whole texts.
        summary_last_dropout: in the multiple-choice head.
    """

    vocab_size: int = 30522
    embedding_size: int = 128
    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    problem_type: str | None = None
    classification_head: str = "dense"
    summary_last_dropout: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "labels", tuple(self.labels))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and field.name != "pad_token_id" and value < 1:
                raise UserError(f"{field.name} is {value}, it must be at least 1")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise UserError(f"hidden_act {self.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise UserError(f"problem_type {self.problem_type!r} is not one of {', '.join(PROBLEM_TYPES)}")
        if self.classification_head not in CLASSIFICATION_HEADS:
            raise UserError(
                f"classification_head {self.classification_head!r} is not one of "
                f"{', '.join(CLASSIFICATION_HEADS)}"
            )
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise UserError(f"labels {list(self.labels)} must be at least one name, none of them twice")

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    @property
    def head_dropout(self) -> float:
        """Dropout of a classification head."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @classmethod
    def from_hub(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """From the content of a Hub config.json; keys that do not shape the model are ignored.

        Raises:
            UserError: another family's config, or a value that this implementation does not know.
        """
        kind = values.get("model_type", "electra")
        if kind == "bert":  # an ELECTRA whose embeddings are as wide as its layers
            values = {**values, "embedding_size": values.get("hidden_size", 768)}
            values = _BERT_DEFAULTS | values
        elif kind != "electra":
            raise UserError(
                f"{where} is of model type {kind!r}, not electra (nor bert, which has its layout)"
            )
        for name, fixed in _FIXED.items():
            if values.get(name, fixed) not in (fixed, None):
                raise UserError(f"{where}: {name} {values[name]!r} is not supported, only {fixed!r}")
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
        """What config.json holds, as Transformers reads it."""
        values = asdict(self) | {"model_type": "electra"}
        if self.classification_head == "dense":
            del values["classification_head"]  # what every reader takes for granted
        return values | hub.label_entries(values.pop("labels"))


@dataclass(frozen=True)
class Shape:
    """A published size: its discriminator, and the generator's width as a share of the discriminator's."""

    discriminator: ElectraConfig
    generator_width: float


def _shape(layers: int, width: int, feed_forward: int, heads: int, embedding: int, share: float) -> Shape:
    return Shape(
        ElectraConfig(
            num_hidden_layers=layers,
            hidden_size=width,
            intermediate_size=feed_forward,
            num_attention_heads=heads,
            embedding_size=embedding,
        ),
        share,
    )


#: arXiv 2003.10555, table 6 (the *released* small model has a generator of full width).
SHAPES = {
    "small": _shape(12, 256, 1024, 4, 128, 1 / 4),
    "base": _shape(12, 768, 3072, 12, 768, 1 / 3),
    "large": _shape(24, 1024, 4096, 16, 1024, 1 / 4),
}


def generator_config(discriminator: ElectraConfig, width: float) -> ElectraConfig:
    """The generator that goes with a discriminator: as deep, narrower, the same embeddings.

    Width and feed-forward shrink by the same factor and heads keep their width where they can, as in
    google-research/electra `run_pretraining.get_generator_config`.

    Args:
        width: the generator's width as a share of the discriminator's, above 0 and at most 1.

    Raises:
        UserError: a share out of range.
    """
    if not 0 < width <= 1:
        raise UserError(f"generator width {width} must be above 0 and at most 1")
    hidden = max(1, round(discriminator.hidden_size * width))
    heads = max(1, hidden * discriminator.num_attention_heads // discriminator.hidden_size)
    while hidden % heads:
        heads -= 1
    return replace(
        discriminator,
        hidden_size=hidden,
        intermediate_size=max(1, round(discriminator.intermediate_size * width)),
        num_attention_heads=heads,
    )
