"""What T5 puts into the gaps of a text: the task it was pre-trained on."""

from __future__ import annotations

import torch

from unmask.errors import UserError
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.text.gaps import GAP


def fill_gaps(
    model: T5ForConditionalGeneration, tokenizer: T5Tokenizer, text: str, *, max_new_tokens: int = 64
) -> list[str]:
    """The model's text for each gap (`___`) of `text`, in order; empty where it wrote none.

    Raises:
        UserError: no gap, or more of them than the vocabulary has sentinels.
    """
    parts = text.split(GAP)
    gaps = len(parts) - 1
    sentinels = tokenizer.sentinel_ids
    if gaps == 0:
        raise UserError(f"the text has no gap: mark one with {GAP}")
    if gaps > len(sentinels):
        raise UserError(f"the text has {gaps} gaps, the vocabulary {len(sentinels)} sentinels")
    marked = parts[0] + "".join(f"<extra_id_{number}>{part}" for number, part in enumerate(parts[1:]))
    ids = torch.tensor([tokenizer.encode(marked)], device=model.device)
    written = model.generate(ids, max_new_tokens=max_new_tokens)[0].tolist()
    return [
        tokenizer.decode(fill, skip_special_tokens=True).strip() for fill in _fills(written, sentinels[:gaps])
    ]


def _fills(written: list[int], sentinels: list[int]) -> list[list[int]]:
    """What stands behind each sentinel, up to whichever sentinel comes next."""
    fills: list[list[int]] = [[] for _ in sentinels]
    number = {sentinel: index for index, sentinel in enumerate(sentinels)}
    current: int | None = None
    for token in written:
        if token in number:
            current = number[token]
        elif current is not None:
            fills[current].append(token)
    return fills
