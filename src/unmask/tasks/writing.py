"""Text from any model that writes, whichever family it is of."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unmask import hub
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import write_texts as write_with_t5
from unmask.tasks.models import family_of

#: The most tokens that T5 writes where the caller gives no limit.
T5_NEW_TOKENS = 64


def write_texts(
    model: str, texts: Sequence[str], max_new_tokens: int | None, *, device: torch.device
) -> list[str]:
    """T5's answers to the texts, or ELECTRA's continuations of them, in their order.

    Raises:
        UserError: no such model, or one that does not write.
    """
    directory = hub.find_model(model)
    if family_of(directory) == "t5":
        t5 = T5ForConditionalGeneration.from_pretrained(directory, device=device)
        return write_with_t5(
            t5, load_tokenizer(directory), texts, max_new_tokens=max_new_tokens or T5_NEW_TOKENS
        )
    writer = ElectraForConditionalGeneration.from_pretrained(directory, device=device)
    results = []
    for text in texts:
        ids = writer.tokenizer.encode(text, return_tensors="pt").to(device)
        written = writer.generate(ids, max_new_tokens=max_new_tokens)
        results.append(writer.tokenizer.decode(written[0], skip_special_tokens=True))
    return results
