"""What an ELECTRA thinks of a text, and why, as a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unmask import hub
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.model import ElectraBackbone, ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.explain import electra
from unmask.explain.integrated_gradients import STEPS, require
from unmask.explain.names import names_of
from unmask.explain.page import attention_blocks, encode
from unmask.report import (
    Block,
    Cell,
    Column,
    Heading,
    HeatMap,
    KeyFacts,
    Page,
    Paragraph,
    Table,
    Token,
    TokenMap,
)
from unmask.text.gaps import GAP

#: How many of the most suspicious tokens, or of the likeliest, are gone into.
_SHOWN = 3

MODELS: dict[str, type[ElectraBackbone]] = {
    model.architecture: model
    for model in (ElectraForPreTraining, ElectraForSequenceClassification, ElectraForMaskedLM)
}


def explain(directory: Path, text: str, *, target: str | None = None, steps: int = STEPS) -> Page:
    """A page on a classification, on the discriminator's suspicions or on the generator's proposals.

    Args:
        directory: a model directory, or a pair's: its discriminator's then.
        text: with gaps (`___`) for a generator.
        target: of a classifier: the label to explain instead of the likeliest.

    Raises:
        UserError: no such model or label, an architecture without an explanation, a text that is empty or too long.
        MissingExtraError: captum is not installed.
    """
    require()
    place = directory / DISCRIMINATOR if (directory / DISCRIMINATOR).is_dir() else directory
    architectures = hub.read_json(hub.base_of(place) / hub.CONFIG).get("architectures") or ["nothing"]
    if architectures[0] not in MODELS:
        raise UserError(f"{place} holds {architectures[0]}: explained are {', '.join(MODELS)}")
    tokenizer = ElectraTokenizer.from_pretrained(hub.tokenizer_directory(directory))
    model = MODELS[architectures[0]].from_pretrained(place, dtype="float32").requires_grad_(False)
    if target is not None and not isinstance(model, ElectraForSequenceClassification):
        raise UserError(f"--target {target!r}: only a classifier's label or a T5's text can be one")
    ids = encode(tokenizer, text.replace(GAP, tokenizer.mask_token), "text")
    electra.check(model, ids)
    facts = KeyFacts([("model", directory.resolve().name), ("text", text)])
    if isinstance(model, ElectraForSequenceClassification):
        blocks = _classification(model, tokenizer, ids, target, steps)
        title = "Why the model chooses this label"
    elif isinstance(model, ElectraForPreTraining):
        blocks = _suspicion(model, tokenizer, ids, steps)
        title = "Which tokens the discriminator suspects, and why"
    else:
        assert isinstance(model, ElectraForMaskedLM)
        blocks = _proposals(model, tokenizer, ids, steps)
        title = "What the generator puts into the gaps, and why"
    return Page(title, [facts, *blocks])


def _classification(
    model: ElectraForSequenceClassification,
    tokenizer: ElectraTokenizer,
    ids: list[int],
    target: str | None,
    steps: int,
) -> list[Block]:
    labels = list(model.config.labels)
    logits = electra.label_lens(model, ids)
    if target is not None and target not in labels:
        raise UserError(f"--target {target!r} is no label of the model: {', '.join(labels)}")
    label = int(logits[-1].argmax()) if target is None else labels.index(target)
    layers = [f"layer {number}" for number in range(1, len(logits) + 1)]
    return [
        Heading(f"Evidence for {labels[label]}"),
        HeatMap(
            "Logits with the head after each layer",
            layers,
            labels,
            logits.tolist(),
            "layer ↓ label →",
            "logit",
        ),
        *_evidence(
            model, tokenizer, ids, electra.label_logit(model, label), f"logit of {labels[label]}", steps
        ),
        *_attention(model, tokenizer, ids, electra.label_logit(model, label)),
    ]


def _suspicion(
    model: ElectraForPreTraining, tokenizer: ElectraTokenizer, ids: list[int], steps: int
) -> list[Block]:
    names, found = names_of(tokenizer, ids), electra.suspicion(model, ids)
    inside = [place for place, token in enumerate(ids) if token not in tokenizer.special_ids]
    if not inside:
        raise UserError("--text has no token beside special ones: give some words")
    layers = [f"layer {number}" for number in range(1, len(found) + 1)]
    blocks: list[Block] = [
        Heading("Suspicion"),
        TokenMap(
            "The discriminator's judgement",
            [Token(names[place], float(found[-1, place])) for place in inside],
            "probability that the token was replaced",
        ),
        HeatMap(
            "Suspicion after each layer", layers, names, found.tolist(), "layer ↓ token →", "probability"
        ),
    ]
    ranked = sorted(inside, key=lambda place: -found[-1, place])[:_SHOWN]
    for place in ranked:
        readout = electra.replaced_logit(model, place)
        caption = f"logit that {names[place]!r} ({place}) was replaced"
        blocks += _evidence(model, tokenizer, ids, readout, caption, steps)
    return blocks + _attention(model, tokenizer, ids, electra.replaced_logit(model, ranked[0]))


def _proposals(
    model: ElectraForMaskedLM, tokenizer: ElectraTokenizer, ids: list[int], steps: int
) -> list[Block]:
    gaps = [place for place, token in enumerate(ids) if token == tokenizer.mask_token_id]
    if not gaps:
        raise UserError(f"--text has no gap: mark one with {GAP} (a generator fills gaps)")
    blocks: list[Block] = [Heading("Proposals")]
    for place in gaps:
        shares = electra.token_lens(model, ids, place)
        best = np.argsort(-shares[-1], kind="stable")[:_SHOWN].tolist()
        columns = [Column(f"layer {number}", 4, numeric=True) for number in range(1, len(shares) + 1)]
        rows: list[list[Cell]] = [
            [name, *map(float, shares[:, token])]
            for name, token in zip(names_of(tokenizer, best), best, strict=True)
        ]
        blocks.append(Table(f"Gap at {place}: probability after each layer", ["token", *columns], rows))
        readout = electra.token_log_probability(model, place, best[0])
        caption = f"log-probability of {rows[0][0]!r} at {place}"
        blocks += _evidence(model, tokenizer, ids, readout, caption, steps)
    likeliest = int(electra.token_lens(model, ids, gaps[0])[-1].argmax())
    return blocks + _attention(
        model, tokenizer, ids, electra.token_log_probability(model, gaps[0], likeliest)
    )


def _evidence(
    model: ElectraBackbone,
    tokenizer: ElectraTokenizer,
    ids: list[int],
    readout: electra.Readout,
    caption: str,
    steps: int,
) -> list[Block]:
    found = electra.attribute(
        model, ids, readout, padding=tokenizer.pad_token_id, keep=sorted(tokenizer.special_ids), steps=steps
    )
    sentence = (
        f"Integrated gradients with {steps} points: the {caption} is {found.output:.3f}, for a text of padding "
        f"{found.baseline_output:.3f}; the shares sum to the difference up to {found.delta:.4f}."
    )
    names = names_of(tokenizer, ids)
    shares = HeatMap(
        f"Shares of the {caption}", ["share"], names, [found.shares.tolist()], "token →", "logits or nats"
    )
    return [Paragraph(sentence), shares]


def _attention(
    model: ElectraBackbone, tokenizer: ElectraTokenizer, ids: list[int], readout: electra.Readout
) -> list[Block]:
    names = names_of(tokenizer, ids)
    axes = (names, names, "from ↓ to →")
    falls = electra.head_importance(model, ids, readout)
    return [
        Heading("Attention"),
        Paragraph(
            "Rows sum to 1. Where a model looks is no proof of what it uses: the importance of a head is how far the "
            "first number explained above falls without it."
        ),
        *attention_blocks("encoder", electra.attention(model, ids), falls, axes, "logits or nats"),
    ]
