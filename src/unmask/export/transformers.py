"""A plain directory for Transformers, which loads it by `Auto…from_pretrained` and computes the same.

Names of classes alone are Transformers'; nothing of it is imported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask import hub
from unmask.electra.heads import ELECTRAS
from unmask.electra.tokenizer import SEGMENTER, ElectraTokenizer
from unmask.errors import UserError
from unmask.export.card import write_export_card
from unmask.export.place import check_place, new_directory
from unmask.export.source import Source
from unmask.nn.pretrained import PretrainedModel
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.config import KINDS
from unmask.t5.heads import T5ForQuestionAnswering, T5ForSequenceClassification, T5ForTokenClassification
from unmask.t5.model import T5EncoderModel, T5ForConditionalGeneration

#: What is written: a directory without one of these is not replaced.
SIGNS = (hub.CONFIG, hub.WEIGHTS)

_T5: dict[str, type[PretrainedModel]] = {
    "ForConditionalGeneration": T5ForConditionalGeneration,
    "EncoderModel": T5EncoderModel,
    "ForSequenceClassification": T5ForSequenceClassification,
    "ForTokenClassification": T5ForTokenClassification,
    "ForQuestionAnswering": T5ForQuestionAnswering,
}
#: The end of an architecture's name → the Auto class that loads it.
_AUTO = {
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForPreTraining": "AutoModelForPreTraining",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForMultipleChoice": "AutoModelForMultipleChoice",
}

_USE = """\
from transformers import AutoTokenizer, {auto}

model = {auto}.from_pretrained("{place}")
tokenizer = AutoTokenizer.from_pretrained("{place}")"""


@dataclass(frozen=True)
class TransformersExport:
    """What was written: the Hub's name of the architecture, and the class that loads it."""

    architecture: str
    auto_class: str


def export(
    model: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool = False
) -> TransformersExport:
    """Write a model with its tokenizer as Transformers reads it, whole or not at all.

    The weights are float32 safetensors under the Hub's names; int8 weights become floating-point ones again, no more
    exact than they were. tokenizer.json and the configs lie beside.

    Args:
        model: a model directory or Hub name, of any T5 or ELECTRA with or without a head.
        overwrite: replace an earlier export.

    Raises:
        UserError: no such model, one that Transformers cannot have (a pair, an ELECTRA with one linear layer for
            whole texts, a tokenizer whose words a segmenter of ours cuts), an adapter, a place that is taken.
    """
    place = Path(out).expanduser()
    check_place(place, overwrite=overwrite, signs=SIGNS)
    source = Source.of(hub.find_model(model))
    kind = _class_of(source)
    _check_foreign(source)
    loaded = kind.from_pretrained(source.directory, dtype="float32")
    load: Any = load_tokenizer if source.kind in KINDS else ElectraTokenizer.from_pretrained
    tokenizer = load(source.directory)
    with new_directory(place, overwrite=overwrite, signs=SIGNS) as temporary:
        loaded.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        name = loaded.hub_architecture
        auto = next((auto for end, auto in _AUTO.items() if name.endswith(end)), "AutoModel")
        write_export_card(
            temporary,
            model,
            source.directory,
            form="a directory of Transformers",
            library="transformers",
            facts=[("architecture", name), ("weights", "float32")],
            use=_USE.format(auto=auto, place=place.name),
        )
    return TransformersExport(name, auto)


def _class_of(source: Source) -> type[PretrainedModel]:
    if source.kind in KINDS:
        for end, found in _T5.items():
            if source.architecture.endswith(end):
                return found
    if source.architecture in ELECTRAS:
        return ELECTRAS[source.architecture]
    raise UserError(f"{source} is none of T5 and {', '.join(ELECTRAS)}: it is not exported")


def _check_foreign(source: Source) -> None:
    """Refuse what Transformers would load as something else."""
    if source.config.get("classification_head", "dense") != "dense":
        raise UserError(
            f"{source} has one linear layer for whole texts, which Transformers' ELECTRA has not: export it to ONNX"
        )
    path = source.directory / "tokenizer_config.json"
    segmenter = hub.read_json(path).get(SEGMENTER) if path.is_file() else None
    if segmenter is not None:
        raise UserError(
            f"{path}: the segmenter {segmenter!r} cuts texts into words, which Transformers would not do"
        )
