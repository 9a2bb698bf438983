"""T5 as a writer: how its sources are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unmask.errors import UserError
from unmask.generation.writing import SequenceWriter
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.model import T5ForConditionalGeneration


class T5Writer(SequenceWriter):
    """A T5 that writes: sources end with `</s>`.

    Raises:
        UserError: as of `SequenceWriter`, or a tokenizer with more pieces than the weights have rows.
    """

    tokenizer: AnyT5Tokenizer

    def __init__(self, model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer, **settings: Any) -> None:
        check_vocabulary(model, tokenizer)
        super().__init__(model, tokenizer, **settings)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        whole = [self.prefix + text for text in texts] if self.prefix else texts
        return encode_with_end(self.tokenizer, whole, self.max_source_length)


def check_vocabulary(model: T5ForConditionalGeneration, tokenizer: AnyT5Tokenizer) -> None:
    """Raises:
    UserError: the tokenizer has a piece that the weights have no row for. Sentinels do not count: models
        that never learnt them are known to leave them out of their weights.
    """
    pieces = 1 + max(set(range(tokenizer.vocab_size)) - tokenizer.special_ids)
    if pieces > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {pieces} pieces, the weights have {model.config.vocab_size} rows: "
            "they are not of one model; put the tokenizer's files that came with the weights beside them"
        )


def write_texts(
    model: T5ForConditionalGeneration,
    tokenizer: AnyT5Tokenizer,
    texts: Sequence[str],
    *,
    max_new_tokens: int,
    max_source_length: int | None = None,
) -> list[str]:
    """The model's answer to each text, as generation_config.json says, without white space around it.

    Args:
        max_new_tokens: the most tokens of an answer, `</s>` included.
        max_source_length: tokens of a text that are read, `</s>` included; None: all.
    """
    writer = T5Writer(model, tokenizer, max_new_tokens=max_new_tokens, max_source_length=max_source_length)
    return [found[0].text.strip() for found in writer.write(texts)]


def encode_with_end(tokenizer: AnyT5Tokenizer, texts: Sequence[str], limit: int | None) -> list[list[int]]:
    """Token ids of each text, cut to `limit` with `</s>` always last."""
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    room = None if limit is None else limit - 1
    return [[*ids[:room], tokenizer.eos_token_id] for ids in encoded]
