"""Many texts in, many texts out: batches of similar length, results in the order of the inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.model import T5ForConditionalGeneration

#: Rows that are decoded together.
BATCH_ROWS = 64


def write_texts(
    model: T5ForConditionalGeneration,
    tokenizer: AnyT5Tokenizer,
    texts: Sequence[str],
    *,
    max_new_tokens: int,
    max_source_length: int | None = None,
) -> list[str]:
    """The model's greedy answer to each text.

    Args:
        max_new_tokens: the most tokens of an answer, `</s>` included.
        max_source_length: tokens of a text that are read, `</s>` included; None: all.
    """
    encoded = encode_with_end(tokenizer, texts, max_source_length)
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    answers = [""] * len(encoded)
    for first in range(0, len(order), BATCH_ROWS):
        rows = order[first : first + BATCH_ROWS]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(encoded[row]) for row in rows], batch_first=True)
        lengths = torch.tensor([len(encoded[row]) for row in rows])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        written = model.generate(ids.to(model.device), mask.to(model.device), max_new_tokens=max_new_tokens)
        for row, text in zip(rows, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
            answers[row] = text.strip()
    return answers


def encode_with_end(tokenizer: AnyT5Tokenizer, texts: Sequence[str], limit: int | None) -> list[list[int]]:
    """Token ids of each text, cut to `limit` with `</s>` always last."""
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    room = None if limit is None else limit - 1
    return [[*ids[:room], tokenizer.eos_token_id] for ids in encoded]
