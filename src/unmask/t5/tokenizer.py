"""T5's tokenizer: a SentencePiece Unigram vocabulary, `</s>` at the end, and sentinels counting down.

The published vocabulary has 32,000 pieces (`<pad>` 0, `</s>` 1, `<unk>` 2) and 100 sentinels after them:
`<extra_id_0>` is 32,099, `<extra_id_99>` is 32,000.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from unmask.errors import UserError
from unmask.hub import read_json, write_atomically, write_json
from unmask.text.tokenizer import Tokenizer
from unmask.text.training import train_unigram
from unmask.text.unigram import UnigramVocabulary, parse_model, sentinel
from unmask.text.unigram_json import added_tokens, appended_tokens, from_tokenizer_json, to_tokenizer_json

SPIECE_MODEL = "spiece.model"
TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SENTINELS = 100


class T5Tokenizer(Tokenizer):
    """Text to T5's ids and back; make one with `from_pretrained` or `train`.

    Ids are those of Google's SentencePiece. `decode` gives SentencePiece's text, with `<pad>`, `</s>` and the
    sentinels by their names, or without any special token (`skip_special_tokens=True`, which also leaves out
    unknown pieces, as Transformers does). `</s>` in a text is text, not the end.
    """

    eos_token_id: int

    def __init__(self, vocabulary: UnigramVocabulary) -> None:
        self._vocabulary = vocabulary
        self._fingerprint: str | None = None
        self.pad_token_id = vocabulary.pad_id
        self.eos_token_id = vocabulary.eos_id
        self.unk_token_id = vocabulary.unk_id
        self.special_ids = vocabulary.special_ids

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        sentinels: int = SENTINELS,
        sample_bytes: int = 50_000_000,
    ) -> Self:
        """Train a vocabulary that keeps every text exactly: line breaks, tabs, spaces, braces, any character.

        Args:
            texts: documents.
            vocab_size: pieces, special tokens and bytes among them, without the sentinels that follow:
                `vocab_size=32_000` makes a tokenizer of 32,100 ids, as the published one.
            sentinels: how many `<extra_id_N>` there are.
            sample_bytes: at most this much text is looked at, drawn by hash.

        Raises:
            UserError: the vocabulary is too large or too small for the text; says what works.
        """
        data = train_unigram(texts, vocab_size, sample_bytes=sample_bytes)
        return cls(UnigramVocabulary(parse_model(data, "the trained vocabulary"), _sentinels(sentinels)))

    @classmethod
    def _from_directory(cls, directory: Path) -> Self:
        model_file, json_file = directory / SPIECE_MODEL, directory / TOKENIZER_JSON
        if model_file.is_file():
            model = parse_model(model_file.read_bytes(), str(model_file))
            return cls(UnigramVocabulary(model, _appended(directory, model)))
        if json_file.is_file():
            return cls(UnigramVocabulary(*from_tokenizer_json(read_json(json_file), str(json_file))))
        raise UserError(f"{directory} has no T5 tokenizer: neither {SPIECE_MODEL} nor {TOKENIZER_JSON}")

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `spiece.model`, `tokenizer.json` and `tokenizer_config.json`.

        Transformers' AutoTokenizer gives the same ids from them, sentinels beside punctuation included (its
        own T5Tokenizer class puts a space after sentinels, and drops line breaks).
        """
        path = Path(directory)
        write_atomically(path / SPIECE_MODEL, self._vocabulary.spiece_model())
        write_json(path / TOKENIZER_JSON, to_tokenizer_json(self._vocabulary))
        write_json(path / TOKENIZER_CONFIG, self._config())

    def _config(self) -> dict[str, Any]:
        names = [sentinel(number) for number in self._vocabulary.sentinels]
        return {
            # The class that takes tokenizer.json as it is.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "extra_ids": sum(i >= self._vocabulary.base_size for i in self._vocabulary.sentinels.values()),
            "additional_special_tokens": names,
            "clean_up_tokenization_spaces": False,
        }

    @property
    def vocab_size(self) -> int:
        return self._vocabulary.size

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = self._vocabulary.fingerprint()
        return self._fingerprint

    @property
    def vocabulary(self) -> UnigramVocabulary:
        """The pieces and what was added to them."""
        return self._vocabulary

    @property
    def sentinel_ids(self) -> list[int]:
        """Ids of `<extra_id_0>`, `<extra_id_1>`, …: the first is the highest."""
        return [token_id for _, token_id in sorted(self._vocabulary.sentinels.items())]

    @property
    def lossless(self) -> bool:
        """Whether every text decodes to itself: so for vocabularies that `train` made, not the published."""
        return self._vocabulary.lossless

    def normalize(self, text: str) -> str:
        return self._vocabulary.normalize(text)

    @property
    def releases_gil(self) -> bool:
        return not self._vocabulary.added

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        return self._vocabulary.encode(texts)

    def _encode_arrays(self, texts: list[str]) -> list[np.ndarray]:
        return self._vocabulary.encode_arrays(texts)

    def _with_special(self, first: list[int], second: list[int] | None) -> list[int]:
        end = [self.eos_token_id]
        return first + end if second is None else first + end + second + end

    def _decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
        return self._vocabulary.decode(rows, skip_special_tokens)

    def _token(self, token_id: int) -> str | None:
        return self._vocabulary.token(token_id)

    def _id(self, token: str) -> int | None:
        return self._vocabulary.id(token)


def _sentinels(count: int) -> list[str]:
    return [sentinel(number) for number in reversed(range(count))]


def _appended(directory: Path, model: Any) -> list[str]:
    """What the files beside a `spiece.model` put after its pieces; T5's 100 sentinels if they do not say."""
    base_size = len(model.pieces)
    inside = any("<extra_id_0>" in piece.piece for piece in model.pieces)
    json_file, config_file, tokens_file = (
        directory / name for name in (TOKENIZER_JSON, TOKENIZER_CONFIG, "added_tokens.json")
    )
    config: Mapping[str, Any] = read_json(config_file) if config_file.is_file() else {}
    if json_file.is_file():
        return appended_tokens(added_tokens(read_json(json_file)), base_size, str(json_file))
    count = 0 if inside else int(config.get("extra_ids", SENTINELS))
    tokens = dict(enumerate(_sentinels(count), start=base_size))
    # Tokens that a user added later: newer files list them in the config, older ones in a file of their own.
    for token_id, token in (config.get("added_tokens_decoder") or {}).items():
        tokens[int(token_id)] = token["content"]
    if tokens_file.is_file():
        tokens |= {int(token_id): token for token, token_id in read_json(tokens_file).items()}
    return appended_tokens(tokens, base_size, str(directory))
