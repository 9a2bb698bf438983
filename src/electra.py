"""ELECTRA under its own name: `from electra import ElectraTokenizer, ElectraForConditionalGeneration`."""

from unmask import (
    ElectraConfig,
    ElectraForConditionalGeneration,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraTokenizer,
)

__all__ = [
    "ElectraConfig",
    "ElectraForConditionalGeneration",
    "ElectraForMaskedLM",
    "ElectraForPreTraining",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraTokenizer",
]
