"""ELECTRA's weights: names inside ↔ names on the Hub, as data."""

from __future__ import annotations

import re

from torch import Tensor

# (inside, on the Hub), without the last part (`weight` or `bias`).
_TOP = {
    "encoder.embeddings.token": "electra.embeddings.word_embeddings",
    "encoder.embeddings.position": "electra.embeddings.position_embeddings",
    "encoder.embeddings.token_type": "electra.embeddings.token_type_embeddings",
    "encoder.embeddings.norm": "electra.embeddings.LayerNorm",
    "encoder.projection": "electra.embeddings_project",
    "generator_head.dense": "generator_predictions.dense",
    "generator_head.norm": "generator_predictions.LayerNorm",
    "generator_head.output": "generator_lm_head",
    "discriminator_head.dense": "discriminator_predictions.dense",
    "discriminator_head.output": "discriminator_predictions.dense_prediction",
    "sequence_head.dense": "classifier.dense",
    "sequence_head.output": "classifier.out_proj",
    "sequence_head.linear": "classifier",
    "token_head.linear": "classifier",
    "span_head": "qa_outputs",
    "choice_head.dense": "sequence_summary.summary",
    "choice_head.output": "classifier",
}
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}

WORD_EMBEDDINGS = "electra.embeddings.word_embeddings.weight"
OUTPUT_EMBEDDINGS = "generator_lm_head.weight"
#: Buffers that older Transformers saved beside the weights.
_BUFFERS = ("electra.embeddings.position_ids", "electra.embeddings.token_type_ids")
#: How a bare encoder's file (Transformers' `ElectraModel`) names what others keep under `electra.`.
_BARE = ("embeddings.", "embeddings_project.", "encoder.", "pooler.")


def hub_name(name: str) -> str:
    """The name on the Hub of a parameter, such as `encoder.layers.0.query.weight`."""
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(\w+)", stem)
    if match is None or match[2] not in _LAYER:
        raise KeyError(name)
    return f"electra.encoder.layer.{match[1]}.{_LAYER[match[2]]}.{kind}"


# BERT's names: its encoder is ELECTRA's, and its masked-LM head the generator's.
_BERT_HEAD = {
    "cls.predictions.transform.dense.": "generator_predictions.dense.",
    "cls.predictions.transform.LayerNorm.": "generator_predictions.LayerNorm.",
    "cls.predictions.bias": "generator_lm_head.bias",
    "cls.predictions.decoder.": "generator_lm_head.",
}
#: The first checkpoints of both families call a norm's tensors so.
_NORM = {".gamma": ".weight", ".beta": ".bias"}


def settle(weights: dict[str, Tensor]) -> None:
    """Bring the variants that writers have produced to one form, in place: ELECTRA's full names, no buffers."""
    for name in list(weights):
        weights[_settled(name)] = weights.pop(name)
    for name in _BUFFERS:
        weights.pop(name, None)
    if any(name.startswith("electra.pooler.") for name in weights):
        # A BERT's classifier of texts reads its pooler, which ELECTRA lacks: it would be a wrong head here.
        for name in ("classifier.weight", "classifier.bias"):
            weights.pop(name, None)


def _settled(name: str) -> str:
    for old, new in _NORM.items():
        if name.endswith(f"LayerNorm{old}"):
            name = name.removesuffix(old) + new
    for old, new in _BERT_HEAD.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    if name.startswith("bert."):
        return f"electra.{name.removeprefix('bert.')}"
    return f"electra.{name}" if name.startswith(_BARE) else name
