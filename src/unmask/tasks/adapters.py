"""An adapter as a plain model: LoRA's products added to the weights, for programs that read models alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unmask import hub
from unmask.electra.heads import (
    ElectraForMultipleChoice,
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.tasks.models import family_of

#: The models that an adapter can be of, by family and PEFT's name for what they are for.
_MODELS: dict[tuple[str, str | None], Any] = {
    ("t5", "SEQ_2_SEQ_LM"): T5ForConditionalGeneration,
    ("electra", "SEQ_CLS"): ElectraForSequenceClassification,
    ("electra", "TOKEN_CLS"): ElectraForTokenClassification,
    ("electra", "QUESTION_ANS"): ElectraForQuestionAnswering,
    ("electra", None): ElectraForMultipleChoice,
}


def merge_adapter(source: Path, out: Path) -> None:
    """Write the model that an adapter and its base make together, with its tokenizer, as a model directory.

    Raises:
        UserError: an adapter of another kind of model, or what `from_pretrained` raises.
    """
    family = family_of(source)
    task = hub.read_json(source / hub.ADAPTER).get("task_type")
    model = _MODELS.get((family, task))
    if model is None:
        known = ", ".join(str(name) for kind, name in _MODELS if kind == family)
        raise UserError(f"{source} has the task_type {task!r}: for this family {known} can be merged")
    tokenizer: Any = load_tokenizer(source) if family == "t5" else ElectraTokenizer.from_pretrained(source)
    merged = model.from_pretrained(source)
    with hub.atomic_directory(out) as temporary:
        merged.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
