"""What T5 may write, said in text: a set of strings, a regular expression, a JSON schema.

What they return goes to `model.generate(…, constraint=…)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from unmask.errors import UserError
from unmask.generation.constraints import Choices
from unmask.generation.grammar import Grammar, Vocabulary
from unmask.t5.byte_tokenizer import SPECIAL, AnyT5Tokenizer, ByT5Tokenizer
from unmask.t5.tokenizer import T5Tokenizer

#: SentencePiece's mark of a space, and its name of a single byte.
SPACE = "▁"
BYTE = re.compile("<0x([0-9A-F]{2})>")


def choices(tokenizer: AnyT5Tokenizer, texts: Iterable[str]) -> Choices:
    """Results are among these texts, each written as the tokenizer writes it.

    Raises:
        UserError: a text that the vocabulary cannot write, or none at all.
    """
    given = list(texts)
    encoded = tokenizer.encode_batch(given)
    for text, decoded in zip(given, tokenizer.batch_decode(encoded, skip_special_tokens=True), strict=True):
        if decoded != text:
            raise UserError(f"choice {text!r} cannot be written: the vocabulary makes {decoded!r} of it")
    return Choices(encoded, tokenizer.eos_token_id)


def regex(tokenizer: AnyT5Tokenizer, pattern: str) -> Grammar:
    """The whole text of a result matches a pattern (Rust's syntax: no look-around, no back-references).

    Raises:
        UserError: a pattern that is wrong, or that nothing the vocabulary writes can begin.
    """
    return Grammar.regex(vocabulary_of(tokenizer), pattern)


def json_schema(tokenizer: AnyT5Tokenizer, schema: Mapping[str, Any] | str) -> Grammar:
    """The text of a result is JSON that a schema allows.

    The published T5 vocabulary has no braces: objects need a tokenizer that unmask trained, or ByT5's.

    Raises:
        UserError: a schema that is wrong, or that nothing the vocabulary writes can begin.
    """
    return Grammar.json_schema(vocabulary_of(tokenizer), schema)


@lru_cache(maxsize=4)
def vocabulary_of(tokenizer: AnyT5Tokenizer) -> Vocabulary:
    """The bytes that each token of a tokenizer writes."""
    pieces = _byte_pieces(tokenizer) if isinstance(tokenizer, ByT5Tokenizer) else _pieces(tokenizer)
    words = (number for number, piece in enumerate(pieces) if piece and piece[:1] == b" " != piece)
    spaced = next(words, None)
    drops = spaced is not None and not tokenizer.decode([spaced]).startswith(" ")
    return Vocabulary(pieces, tokenizer.eos_token_id, drops_first_space=drops)


def _pieces(tokenizer: T5Tokenizer) -> list[bytes | None]:
    tokens = tokenizer.convert_ids_to_tokens(range(tokenizer.vocab_size))
    return [
        None if token is None or number in tokenizer.special_ids else _written(token)
        for number, token in enumerate(tokens)
    ]


def _byte_pieces(tokenizer: ByT5Tokenizer) -> list[bytes | None]:
    """ByT5's tokens are named by characters, and write the bytes of the same numbers."""
    first = len(SPECIAL)
    return [
        None if number in tokenizer.special_ids else bytes([number - first])
        for number in range(tokenizer.vocab_size)
    ]


def _written(token: str) -> bytes:
    byte = BYTE.fullmatch(token)
    return bytes([int(byte.group(1), 16)]) if byte else token.replace(SPACE, " ").encode()
