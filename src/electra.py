"""ELECTRA under its own name: `from electra import ElectraTokenizer, ElectraForConditionalGeneration`."""

from unmask import (
    ElectraConfig,
    ElectraForConditionalGeneration,
    ElectraForMaskedLM,
    ElectraForMultipleChoice,
    ElectraForPreTraining,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
    ElectraTokenizer,
)

__all__ = [
    "ElectraConfig",
    "ElectraForConditionalGeneration",
    "ElectraForMaskedLM",
    "ElectraForMultipleChoice",
    "ElectraForPreTraining",
    "ElectraForQuestionAnswering",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraModel",
    "ElectraTokenizer",
]
