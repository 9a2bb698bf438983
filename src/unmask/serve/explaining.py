"""What a model's answer rests on, as JSON: the numbers of `unmask explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.explain import electra, t5
from unmask.explain.names import names_of
from unmask.serve.jobs import Pause
from unmask.serve.t5_answers import Pauses
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.text.gaps import GAP

#: Tokens of a text that are explained at most: there is a number for every pair of them.
LONGEST = 256

Explained = ElectraForSequenceClassification | ElectraForPreTraining | ElectraForMaskedLM


@dataclass(frozen=True)
class Question:
    """What is to be explained; see `bodies.Explanation`.

    Attributes:
        ids: that the model reads.
        types: their segments; None: all of the first.
    """

    ids: list[int]
    types: list[int] | None
    target: str | None
    place: int | None
    steps: int
    new_tokens: int


def explains(model: Any) -> bool:
    """Whether an ELECTRA with this head can be explained."""
    return isinstance(model, Explained)


def of_t5(
    model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer, pause: Pause, question: Question
) -> dict[str, Any]:
    """The evidence for each written token, over source and prefix apart, and cross-attention; pauses at each step of
    writing and before each pass of the integrals."""
    source = question.ids
    if question.target is None:
        written = model.generate(
            torch.tensor([source], device=model.device),
            max_new_tokens=question.new_tokens,
            num_beams=1,
            do_sample=False,
            constraint=Pauses(pause),
        )
        target = [int(token) for token in written[0, 1:]]
    else:
        target = ids_of(tokenizer, question.target, "target")
    with torch.inference_mode(False), torch.enable_grad():
        found = t5.attribute(model, source, target, steps=question.steps, before_pass=pause)
        cross = t5.attention(model, source, target).cross
    return {
        "text": tokenizer.decode(target, skip_special_tokens=True),
        "source": names_of(tokenizer, source),
        "target": names_of(tokenizer, target),
        "prefix": names_of(tokenizer, t5.prefix_of(model, target)),
        "source_shares": found.source.tolist(),
        "prefix_shares": found.prefix.tolist(),
        "log_probabilities": found.output.tolist(),
        "baselines": found.baseline_output.tolist(),
        "deltas": found.delta.tolist(),
        "cross_attention": cross.mean((0, 1)).tolist(),
    }


def of_electra(
    model: Explained, tokenizer: ElectraTokenizer, pause: Pause, question: Question
) -> dict[str, Any]:
    """The evidence for a label, for the suspicion of a token, or for what stands in a gap; pauses before each pass of
    the integral."""
    if question.target is not None and not isinstance(model, ElectraForSequenceClassification):
        raise UserError("target: only a classifier's label or a T5's text can be explained")
    ids = question.ids
    if question.place is not None and question.place >= len(ids):
        raise UserError(f"place {question.place} is none of the text's {len(ids)} tokens")
    with torch.inference_mode(False), torch.enable_grad():
        return _of_electra(model, tokenizer, pause, question)


def _of_electra(
    model: Explained, tokenizer: ElectraTokenizer, pause: Pause, question: Question
) -> dict[str, Any]:
    ids = question.ids
    electra.check(model, ids)
    if isinstance(model, ElectraForSequenceClassification):
        about, readout = _label(model, question)
    elif isinstance(model, ElectraForPreTraining):
        about, readout = _suspicion(model, tokenizer, ids, question)
    else:
        about, readout = _proposal(model, tokenizer, ids, question)
    found = electra.attribute(
        model,
        ids,
        readout,
        padding=tokenizer.pad_token_id,
        keep=sorted(tokenizer.special_ids),
        types=question.types,
        steps=question.steps,
        before_pass=pause,
    )
    return {
        "tokens": names_of(tokenizer, ids),
        **about,
        "shares": found.shares.tolist(),
        "output": found.output,
        "baseline": found.baseline_output,
        "delta": found.delta,
    }


def _label(
    model: ElectraForSequenceClassification, question: Question
) -> tuple[dict[str, Any], electra.Readout]:
    labels = list(model.config.labels)
    logits = electra.label_lens(model, question.ids, question.types)[-1]
    if question.target is not None and question.target not in labels:
        raise UserError(f"target {question.target!r} is no label of the model: {', '.join(labels)}")
    label = int(logits.argmax()) if question.target is None else labels.index(question.target)
    about = {"label": labels[label], "logits": dict(zip(labels, logits.tolist(), strict=True))}
    return about, electra.label_logit(model, label)


def _suspicion(
    model: ElectraForPreTraining, tokenizer: ElectraTokenizer, ids: list[int], question: Question
) -> tuple[dict[str, Any], electra.Readout]:
    suspicion = electra.suspicion(model, ids)[-1]
    inside = [place for place, token in enumerate(ids) if token not in tokenizer.special_ids]
    if not inside:
        raise UserError("input has no token beside special ones: give some words")
    place = max(inside, key=lambda at: suspicion[at]) if question.place is None else question.place
    return {"place": place, "suspicion": suspicion.tolist()}, electra.replaced_logit(model, place)


def _proposal(
    model: ElectraForMaskedLM, tokenizer: ElectraTokenizer, ids: list[int], question: Question
) -> tuple[dict[str, Any], electra.Readout]:
    gaps = [place for place, token in enumerate(ids) if token == tokenizer.mask_token_id]
    if not gaps:
        raise UserError(f"input has no gap: mark one with {GAP} (a generator fills gaps)")
    place = gaps[0] if question.place is None else question.place
    if place not in gaps:
        raise UserError(f"place {place} is no gap: there are {', '.join(map(str, gaps))}")
    best = int(electra.token_lens(model, ids, place)[-1].argmax())
    about = {"place": place, "token": names_of(tokenizer, [best])[0]}
    return about, electra.token_log_probability(model, place, best)


def ids_of(tokenizer: Any, text: str, name: str) -> list[int]:
    """Raises:
    UserError: nothing to explain, or too much.
    """
    if not text.strip():
        raise UserError(f"{name} is empty: give some words")
    ids: list[int] = tokenizer.encode(text)
    check_size(ids, name)
    return ids


def check_size(ids: Sequence[int], name: str) -> None:
    """Raises:
    UserError: too much to explain.
    """
    if len(ids) > LONGEST:
        raise UserError(f"{name} has {len(ids)} tokens, at most {LONGEST} are explained: shorten it")
