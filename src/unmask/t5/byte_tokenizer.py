"""ByT5's tokenizer: no vocabulary, a token for each byte of UTF-8 (arXiv 2105.13626)."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, Self

from unmask.errors import UserError
from unmask.hub import find_model, read_json, tokenizer_directory, write_json
from unmask.t5.tokenizer import T5Tokenizer
from unmask.text.tokenizer import Tokenizer

TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL = ("<pad>", "</s>", "<unk>")
BYTES = 256
FIRST_EXTRA = len(SPECIAL) + BYTES
EXTRA_IDS = 125
_EXTRA = re.compile(r"(<extra_id_(?:0|[1-9]\d*)>)")


class ByT5Tokenizer(Tokenizer):
    """Text to ByT5's ids and back: id = byte + 3, `</s>` at the end.

    Ids 0, 1 and 2 are `<pad>`, `</s>` and `<unk>`; `<extra_id_N>` in a text is the one token 259 + N, as in
    Transformers (none of the published weights was trained on those: see `sentinel_ids`). `</s>` in a text is
    text, not the end. Bytes that are no UTF-8 are left out in decoding.
    """

    eos_token_id: int
    pad_token_id, unk_token_id = 0, 2

    def __init__(self, extra_ids: int = EXTRA_IDS) -> None:
        """Args:
        extra_ids: how many `<extra_id_N>` there are.
        """
        if extra_ids < 0:
            raise UserError(f"extra_ids {extra_ids} must be 0 or more")
        self.extra_ids = extra_ids
        self.eos_token_id = 1
        self.special_ids = frozenset({0, 1, 2, *range(FIRST_EXTRA, FIRST_EXTRA + extra_ids)})

    @classmethod
    def _from_directory(cls, directory: Path) -> Self:
        path = directory / TOKENIZER_CONFIG
        config: dict[str, Any] = read_json(path) if path.is_file() else {}
        kind = config.get("tokenizer_class", "ByT5Tokenizer")
        if kind != "ByT5Tokenizer" or (directory / "spiece.model").is_file():
            raise UserError(f"{directory} holds the tokenizer of another model, not ByT5's: use T5Tokenizer")
        names = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
        extra = sum(_EXTRA.fullmatch(str(name)) is not None for name in names)
        # Transformers writes `extra_ids: 0` beside the list of names.
        return cls(extra or int(config.get("extra_ids") or EXTRA_IDS))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `tokenizer_config.json`, which is all there is; Transformers reads it."""
        values = {
            "tokenizer_class": "ByT5Tokenizer",
            "extra_ids": self.extra_ids,
            "additional_special_tokens": [f"<extra_id_{number}>" for number in range(self.extra_ids)],
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
        }
        write_json(Path(directory) / TOKENIZER_CONFIG, values)

    @property
    def vocab_size(self) -> int:
        return FIRST_EXTRA + self.extra_ids

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"bytes + {len(SPECIAL)}, {self.extra_ids} extra".encode()).hexdigest()

    @property
    def sentinel_ids(self) -> list[int]:
        """What ByT5's own pre-training marked spans with: ids down from 258, the values of the last bytes.

        (seqio's `ByteVocabulary` has no extra ids there, and sentinels count down from its last id.) Only the
        first eleven stand for bytes that no text contains, 0xFF to 0xF5; the list ends there.
        """
        return list(range(FIRST_EXTRA - 1, FIRST_EXTRA - 1 - (0xFF - 0xF4), -1))

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        # Every other part is an <extra_id_N>.
        for part in _EXTRA.split(text):
            token_id = self._extra(part)
            if token_id is None:
                ids += [byte + len(SPECIAL) for byte in part.encode()]
            else:
                ids.append(token_id)
        return ids

    def _extra(self, name: str) -> int | None:
        if _EXTRA.fullmatch(name) is None:
            return None
        number = int(name[len("<extra_id_") : -1])
        return FIRST_EXTRA + number if number < self.extra_ids else None

    def _with_special(self, first: list[int], second: list[int] | None) -> list[int]:
        end = [self.eos_token_id]
        return first + end if second is None else first + end + second + end

    def spelled(self, ids: list[int]) -> str:
        """Every id as a person can read it: bytes that make no character, sentinels among them, as `\\xff`."""
        return self._bytes(ids, skip_special_tokens=False).decode(errors="backslashreplace")

    def _decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
        return [self._bytes(row, skip_special_tokens).decode(errors="ignore") for row in rows]

    def _bytes(self, row: list[int], skip_special_tokens: bool) -> bytes:
        data = bytearray()
        for token_id in row:
            if len(SPECIAL) <= token_id < FIRST_EXTRA:
                data.append(token_id - len(SPECIAL))
            elif not skip_special_tokens:
                data += (self._token(token_id) or "").encode()
        return bytes(data)

    def _token(self, token_id: int) -> str | None:
        """A byte's token is the character of that number, as in Transformers."""
        if token_id < len(SPECIAL):
            return SPECIAL[token_id]
        if token_id < FIRST_EXTRA:
            return chr(token_id - len(SPECIAL))
        return f"<extra_id_{token_id - FIRST_EXTRA}>" if token_id < self.vocab_size else None

    def _id(self, token: str) -> int | None:
        if token in SPECIAL:
            return SPECIAL.index(token)
        if len(token) == 1 and ord(token) < BYTES:
            return ord(token) + len(SPECIAL)
        return self._extra(token)


AnyT5Tokenizer = T5Tokenizer | ByT5Tokenizer


def load_tokenizer(name_or_path: str | os.PathLike[str]) -> AnyT5Tokenizer:
    """The tokenizer that a T5 came with: bytes where its tokenizer_config.json says so, else SentencePiece's.

    Raises:
        UserError: there is no such model, it has no tokenizer files, or they cannot be read.
    """
    directory = tokenizer_directory(find_model(name_or_path))
    path = directory / TOKENIZER_CONFIG
    if path.is_file() and read_json(path).get("tokenizer_class") == "ByT5Tokenizer":
        return ByT5Tokenizer.from_pretrained(directory)
    return T5Tokenizer.from_pretrained(directory)
