"""What the pages of both families share: the texts that they take, and maps of attention."""

from __future__ import annotations

import numpy as np

from unmask.errors import UserError
from unmask.explain.integrated_gradients import Array
from unmask.report import Block, Heading, HeatMap
from unmask.text.tokenizer import Tokenizer

#: The longest text that a page is made of, in tokens: its maps have a cell for every pair of them.
LONGEST = 256
#: Heads that are shown by themselves, those that matter most.
_HEADS_SHOWN = 3


def encode(tokenizer: Tokenizer, text: str, flag: str) -> list[int]:
    """The ids of a text, the value of `--flag`.

    Raises:
        UserError: it is empty, or too long for a page.
    """
    if not text.strip():
        raise UserError(f"--{flag} is empty: give some words")
    ids = tokenizer.encode(text)
    if len(ids) > LONGEST:
        raise UserError(f"--{flag} has {len(ids)} tokens, a page shows at most {LONGEST}: shorten it")
    return ids


def attention_blocks(
    name: str,
    weights: Array,
    falls: Array,
    axes: tuple[list[str], list[str], str],
    unit: str,
) -> list[Block]:
    """Maps of a stack: the mean over all heads of its last layer, and the heads that matter most.

    Args:
        weights: (layers, heads, queries, keys); falls: (layers, heads), in `unit`.
        axes: names of queries and keys, and what they are.
    """
    rows, columns, corner = axes
    layers = [f"layer {number}" for number in range(1, len(falls) + 1)]
    heads = [f"head {number}" for number in range(1, falls.shape[1] + 1)]
    mean = weights.mean((0, 1))
    blocks: list[Block] = [
        Heading(name.capitalize(), level=3),
        HeatMap(f"Importance of heads: {name}", layers, heads, falls.tolist(), "layer ↓ head →", unit),
        HeatMap(f"Mean of all heads: {name}", rows, columns, mean.tolist(), corner, "weight"),
    ]
    # Stable: of equal heads the first.
    for place in np.argsort(-falls, axis=None, kind="stable")[:_HEADS_SHOWN]:
        layer, head = (int(number) for number in np.unravel_index(place, falls.shape))
        caption = (
            f"Layer {layer + 1}, head {head + 1}: {name}, {falls[layer, head]:.2f} {unit} lost without it"
        )
        blocks.append(HeatMap(caption, rows, columns, weights[layer, head].tolist(), corner, "weight"))
    return blocks
