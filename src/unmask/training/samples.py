"""What a model does with one held-out text, for a person to watch while it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from unmask.electra.corruption import fill_masks
from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.nn.ragged import Layout
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.training.loop import Batch
from unmask.training.watching import Sample

#: Of T5: so many spans, or where there are none so many tokens.
SPANS, TOKENS = 3, 64
#: Of ELECTRA: about so many tokens.
WORDY = 40
#: From where on a token counts as suspected.
SUSPECTED = 0.5


@torch.no_grad()
def t5_sample(
    model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer, batch: Batch, device: torch.device
) -> Sample:
    """What a model writes, greedily, for the beginning of a batch's first example.

    Returns:
        "text": all of it on one line; "input", "output", "wanted".
    """
    inputs = batch["inputs"][: batch["input_lengths"][0]]
    targets = batch["targets"][: batch["target_lengths"][0]]
    end = np.array([tokenizer.eos_token_id], np.int32)
    if len(tokenizer.sentinel_ids) > SPANS and (inputs == tokenizer.sentinel_ids[SPANS]).any():
        inputs, targets = (
            np.append(part[: _first(part, tokenizer.sentinel_ids[SPANS])], end) for part in (inputs, targets)
        )
    elif len(inputs) > TOKENS:
        inputs = np.append(inputs[:TOKENS], end)
    written = _greedy(model, inputs, min(len(targets) + 8, TOKENS), tokenizer.eos_token_id, device)
    parts = {
        "input": tokenizer.decode(inputs.tolist()),
        "output": tokenizer.decode(written),
        "wanted": tokenizer.decode(targets[:TOKENS].tolist()),
    }
    return {"text": f"{parts['input']} → {parts['output']} (wanted: {parts['wanted']})", **parts}


def _first(ids: np.ndarray, token: int) -> int:
    """Where a token stands first, or the end."""
    places = np.flatnonzero(ids == token)
    return int(places[0]) if len(places) else len(ids)


def _greedy(
    model: T5ForConditionalGeneration, inputs: np.ndarray, limit: int, end: int, device: torch.device
) -> list[int]:
    """The whole target anew for each token: `generate` would pack the weights for inference, in vain here."""
    layout = Layout.of([len(inputs)], device)
    source = model.encode(torch.from_numpy(inputs.astype(np.int64)).to(device), layout)
    ids = [model.config.decoder_start_token_id]
    while len(ids) <= limit and (len(ids) == 1 or ids[-1] != end):
        stream = torch.tensor(ids, device=device)
        hidden = model.decode(stream, Layout.of([len(ids)], device), source, layout)[-1]
        ids.append(int(F.linear(hidden, model.output_weight).argmax()))
    return ids[1:]


@torch.no_grad()
def electra_sample(
    pair: ElectraPair, tokenizer: ElectraTokenizer, batch: Batch, device: torch.device, *, noise_seed: int
) -> Sample:
    """A sentence in which the generator has filled its masks, and how much the discriminator suspects each token.

    Returns:
        "text": on one line, a replaced token as original→token, with the suspicion where it is that or is suspected;
        "tokens"; "suspicion": of each a probability; "replaced": place of each replaced token → the original.
    """
    row = _sentence(batch)
    tokens, masked, types = (
        torch.from_numpy(row[name].astype(np.int64)).to(device)
        for name in ("tokens", "masked", "token_types")
    )
    drawn, layout = torch.from_numpy(row["drawn"]).to(device), Layout.of([len(row["tokens"])], device)
    ids = fill_masks(pair.generator, tokens, masked, drawn, layout, types, noise_seed=noise_seed).ids
    suspicion = pair.discriminator.token_logits(ids, layout, types).float().sigmoid().tolist()
    shown = [str(token) for token in tokenizer.convert_ids_to_tokens(ids.tolist())]
    was = [str(token) for token in tokenizer.convert_ids_to_tokens(tokens.tolist())]
    replaced = {place: old for place, (old, new) in enumerate(zip(was, shown, strict=True)) if old != new}
    words = []
    for place, (token, share) in enumerate(zip(shown, suspicion, strict=True)):
        text = f"{replaced[place]}→{token}" if place in replaced else token
        words.append(f"{text} ({share:.0%})" if place in replaced or share >= SUSPECTED else text)
    return {
        "text": " ".join(words),
        "tokens": shown,
        "suspicion": [round(share, 4) for share in suspicion],
        "replaced": {str(place): old for place, old in replaced.items()},
    }


def _sentence(batch: Batch) -> dict[str, Any]:
    """Of a batch the example nearest in length to `WORDY` that has a masked token."""
    ends = np.cumsum(batch["lengths"], dtype=np.int64)
    owner = np.searchsorted(ends, batch["drawn"], side="right")
    rows = np.unique(owner)
    row = int(rows[np.argmin(np.abs(batch["lengths"][rows].astype(np.int64) - WORDY))])
    start, end = int(ends[row] - batch["lengths"][row]), int(ends[row])
    parts = {name: batch[name][start:end] for name in ("tokens", "masked", "token_types")}
    return parts | {"drawn": batch["drawn"][owner == row].astype(np.int64) - start}
