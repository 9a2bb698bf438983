"""What T5 puts into the gaps of a text: the task it was pre-trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unmask.errors import UserError
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.text.gaps import GAP


def fill_gaps(
    model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer, text: str, *, max_new_tokens: int = 64
) -> list[str]:
    """The model's text for each gap (`___`) of `text`, in order; empty where it wrote none.

    Raises:
        UserError: no gap, or more of them than the vocabulary has sentinels.
    """
    row = gap_source(tokenizer, text)
    written = model.generate(torch.tensor([row], device=model.device), max_new_tokens=max_new_tokens)
    return gap_texts(tokenizer, written[0].tolist(), text.count(GAP))


def gap_source(tokenizer: AnyT5Tokenizer, text: str) -> list[int]:
    """What a T5 reads to fill the gaps of a text: ids with a sentinel for each.

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
    # ByT5 was pre-trained with other ids than those that its <extra_id_N> have; elsewhere they are the same.
    own = {tokenizer.convert_tokens_to_ids(f"<extra_id_{n}>"): sentinels[n] for n in range(gaps)}
    return [own.get(token, token) for token in tokenizer.encode(marked)]


def gap_texts(tokenizer: AnyT5Tokenizer, written: Sequence[int], gaps: int) -> list[str]:
    """What the ids that a T5 wrote put into each gap."""
    fills = _fills(written, tokenizer.sentinel_ids[:gaps])
    return [tokenizer.decode(fill, skip_special_tokens=True).strip() for fill in fills]


def _fills(written: Sequence[int], sentinels: Sequence[int]) -> list[list[int]]:
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
