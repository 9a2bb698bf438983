"""unmask: train, run and explain T5 and ELECTRA, the models that learn by repairing damaged text."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmask.electra.config import ElectraConfig as ElectraConfig
    from unmask.t5.config import T5Config as T5Config

__version__ = "0.1.0"

# Resolved on first use: `import unmask` and `unmask --help` must not pay for importing torch.
_HOMES = {
    "ByT5Tokenizer": "unmask.t5.byte_tokenizer",
    "T5Config": "unmask.t5.config",
    "T5ForConditionalGeneration": "unmask.t5.model",
    "T5EncoderModel": "unmask.t5.model",
    "T5ForQuestionAnswering": "unmask.t5.heads",
    "T5ForSequenceClassification": "unmask.t5.heads",
    "T5ForTokenClassification": "unmask.t5.heads",
    "T5Tokenizer": "unmask.t5.tokenizer",
    "ElectraConfig": "unmask.electra.config",
    "EncoderDecoderModel": "unmask.electra.encoder_decoder",
    "ElectraForMaskedLM": "unmask.electra.model",
    "ElectraForPreTraining": "unmask.electra.model",
    "ElectraModel": "unmask.electra.heads",
    "ElectraForMultipleChoice": "unmask.electra.heads",
    "ElectraForQuestionAnswering": "unmask.electra.heads",
    "ElectraForSequenceClassification": "unmask.electra.heads",
    "ElectraForTokenClassification": "unmask.electra.heads",
    "ElectraForConditionalGeneration": "unmask.electra.writer",
    "ElectraTokenizer": "unmask.electra.tokenizer",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unmask' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
