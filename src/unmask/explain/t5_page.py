"""What a T5 wrote, and why, as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from unmask import hub
from unmask.errors import UserError
from unmask.explain import t5
from unmask.explain.integrated_gradients import STEPS, require
from unmask.explain.names import names_of
from unmask.explain.page import LONGEST, attention_blocks, encode
from unmask.report import (
    Block,
    Cell,
    Column,
    Curves,
    Heading,
    HeatMap,
    KeyFacts,
    Page,
    Paragraph,
    Series,
    Table,
)
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration


def explain(
    directory: Path,
    text: str,
    *,
    target: str | None = None,
    steps: int = STEPS,
    max_new_tokens: int = 64,
    watch: t5.Watch = iter,
) -> Page:
    """A page on what a T5 writes for a text, or on a given target.

    Args:
        directory: a model directory with a whole T5.
        text: the source, with its task's prefix if the model wants one.
        target: what to explain instead of what the model writes greedily.
        max_new_tokens: of what is written.
        watch: passes the target's places through, to show progress.

    Raises:
        UserError: no such model, a text or target that is empty or too long.
        MissingExtraError: captum is not installed.
    """
    require()
    if not 1 <= max_new_tokens <= LONGEST:
        raise UserError(f"max_new_tokens is {max_new_tokens}, it must be 1 to {LONGEST}")
    tokenizer = load_tokenizer(hub.tokenizer_directory(directory))
    model = T5ForConditionalGeneration.from_pretrained(directory, dtype="float32").requires_grad_(False)
    source = encode(tokenizer, text, "text")
    if target is None:
        written = model.generate(
            torch.tensor([source]), max_new_tokens=max_new_tokens, num_beams=1, do_sample=False
        )
        wanted = [int(token) for token in written[0, 1:]]
    else:
        wanted = encode(tokenizer, target, "target")
    t5.check(model, source, wanted)
    found = t5.attribute(model, source, wanted, steps=steps, watch=watch)
    rows, columns = names_of(tokenizer, wanted), names_of(tokenizer, source)
    prefix = names_of(tokenizer, t5.prefix_of(model, wanted))
    blocks: list[Block] = [
        KeyFacts(
            [
                ("model", directory.resolve().name),
                ("source", text),
                ("target", tokenizer.decode(wanted, True)),
            ]
        ),
        *_attributions(found, rows, columns, prefix, steps),
        *_attention(model, source, wanted, (rows, columns, prefix)),
        *_lens(model, tokenizer, source, wanted, rows),
        *_positions(model),
    ]
    return Page("Why the model writes what it writes", blocks)


def _attributions(
    found: t5.TargetAttribution, rows: list[str], columns: list[str], prefix: list[str], steps: int
) -> list[Block]:
    unwritten = np.triu(np.ones_like(found.prefix, dtype=bool), 1)
    shares = np.stack([found.source.sum(1), found.prefix.sum(1)], 1)
    table: list[list[Cell]] = [
        [
            f"{place + 1} {name}",
            float(found.output[place]),
            *map(float, shares[place]),
            float(found.delta[place]),
        ]
        for place, name in enumerate(rows)
    ]
    names = ("log-probability", "of the source", "of the prefix", "delta")
    return [
        Heading("Evidence for each token"),
        Paragraph(
            f"Integrated gradients with {steps} points: how much of each token's log-probability, in nats, comes from "
            "each token of the source and of what was already written, against a source and prefix of padding. Source "
            "and prefix are separate inputs. The shares of a row sum to the difference from that baseline, up to delta."
        ),
        HeatMap("Source", rows, columns, found.source.tolist(), "written ↓ source →", "nats"),
        HeatMap(
            "Written prefix",
            rows,
            prefix,
            np.where(unwritten, np.nan, found.prefix).tolist(),
            "written ↓ prefix →",
            "nats",
        ),
        Table("Sums, in nats", ["token", *(Column(name, 3, numeric=True) for name in names)], table),
    ]


def _attention(
    model: T5ForConditionalGeneration,
    source: Sequence[int],
    target: Sequence[int],
    names: tuple[list[str], list[str], list[str]],
) -> list[Block]:
    maps, importance = t5.attention(model, source, target), t5.head_importance(model, source, target)
    rows, columns, prefix = names
    blocks: list[Block] = [
        Heading("Attention"),
        Paragraph(
            "Rows sum to 1. The decoder's rows are the steps of writing, one below the other. Where a model looks is "
            "no proof of what it uses: the importance of a head is what the target's log-likelihood loses without it."
        ),
    ]
    parts = (
        ("cross-attention", maps.cross, importance.cross, rows, columns, "written ↓ source →"),
        ("decoder", maps.decoder, importance.decoder, rows, prefix, "written ↓ prefix →"),
        ("encoder", maps.encoder, importance.encoder, columns, columns, "from ↓ to →"),
    )
    for name, weights, falls, down, across, corner in parts:
        blocks += attention_blocks(name, weights, falls, (down, across, corner), "nats")
    return blocks


def _lens(
    model: T5ForConditionalGeneration,
    tokenizer: AnyT5Tokenizer,
    source: Sequence[int],
    target: Sequence[int],
    rows: list[str],
) -> list[Block]:
    found = t5.logit_lens(model, source, target)
    layers = [f"layer {number}" for number in range(1, len(found.likeliest) + 1)]
    likeliest = [names_of(tokenizer, column) for column in found.likeliest.T.tolist()]
    return [
        Heading("Layer by layer"),
        Paragraph(
            "The logit lens: what each decoder layer would write if it were the last, and how probable the written "
            "token is to it."
        ),
        Table(
            "Likeliest token after each layer",
            ["written", *layers],
            [[name, *found_row] for name, found_row in zip(rows, likeliest, strict=True)],
        ),
        HeatMap(
            "Probability of the written token after each layer",
            rows,
            layers,
            found.target_probability.T.tolist(),
            "written ↓ layer →",
            "probability",
        ),
    ]


def _positions(model: T5ForConditionalGeneration) -> list[Block]:
    reach = model.config.relative_attention_max_distance
    blocks: list[Block] = [
        Heading("Relative positions"),
        Paragraph("What the model adds to attention scores by distance alone, one line a head."),
    ]
    for name, stack in (("Encoder", model.encoder), ("Decoder", model.decoder)):
        for number, bias in enumerate(stack.position_biases, start=1):
            distances, values = t5.position_bias(bias, reach)  # type: ignore[arg-type]
            which = f", layer {number}" if len(stack.position_biases) > 1 else ""
            blocks.append(
                Curves(
                    f"{name}{which}: bias by distance",
                    [
                        Series(f"head {head}", distances.tolist(), row.tolist())
                        for head, row in enumerate(values, start=1)
                    ],
                    "key position − query position, in tokens",
                    "bias",
                )
            )
    return blocks
