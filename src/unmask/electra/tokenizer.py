"""ELECTRA's tokenizer: BERT's WordPiece, `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from unmask.errors import UserError
from unmask.hub import read_json, write_atomically, write_json
from unmask.text import wordpiece
from unmask.text.segmentation import Segmentation
from unmask.text.tokenizer import Tokenizer
from unmask.text.training import train_wordpiece

if TYPE_CHECKING:
    import tokenizers


#: Where tokenizer_config.json says which segmenter cuts texts into words; other programs pass over it.
SEGMENTER = "segmenter"


class ElectraTokenizer(Tokenizer):
    """Text to WordPiece ids and back; make one with `from_pretrained` or `train`.

    `[MASK]` and the other special tokens are recognised in a text. `decode` joins pieces and closes the space
    before punctuation, as Transformers does.
    """

    cls_token_id: int
    sep_token_id: int
    mask_token_id: int

    def __init__(
        self, backend: tokenizers.Tokenizer, names: dict[str, str] | None = None, segmenter: str | None = None
    ) -> None:
        """Args:
        backend: the `tokenizers` library's WordPiece.
        names: what the special tokens are called, by role.
        segmenter: the name of a function that cuts texts into words first (`unmask.text.segmentation`).
        """
        self._backend = backend
        whole = [token.content for token in backend.get_added_tokens_decoder().values()]
        self._segmentation = None if segmenter is None else Segmentation(segmenter, whole)
        self._names = dict(wordpiece.SPECIAL_TOKENS if names is None else names)
        ids: dict[str, int] = {}
        for role, name in self._names.items():
            token_id = backend.token_to_id(name)
            if token_id is None:
                raise UserError(f"the vocabulary lacks {name}, which ELECTRA needs")
            ids[role] = token_id
        self.pad_token_id, self.unk_token_id = ids["pad"], ids["unk"]
        self.cls_token_id, self.sep_token_id, self.mask_token_id = ids["cls"], ids["sep"], ids["mask"]
        self.special_ids = frozenset(ids.values())
        self._size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self._fingerprint: str | None = None

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        split_cjk: bool | None = None,
        segmenter: str | None = None,
        sample_bytes: int = 100_000_000,
    ) -> Self:
        """Train a vocabulary: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4, then pieces.

        Args:
            texts: documents.
            vocab_size: all ids, special tokens among them.
            lowercase: fold case, as BERT's uncased models.
            strip_accents: fold accents (also the marks that tell Japanese kana apart); None follows `lowercase`.
            split_cjk: each Chinese character is a word; None: where no segmenter says what a word is.
            segmenter: the name of a function that cuts texts into words first (`unmask.text.segmentation`).
            sample_bytes: at most this much text is looked at, drawn by hash.

        Raises:
            UserError: the vocabulary is too large or too small for the text, which says what works; there is no
                such segmenter.
        """
        if split_cjk is None:
            split_cjk = segmenter is None
        words_of = None
        if segmenter is not None:
            # Names of special tokens in a text to train on are text.
            segmentation = Segmentation(segmenter)
            words_of = lambda text: (word.text for word in segmentation.words(text))  # noqa: E731
        vocab = train_wordpiece(
            texts,
            vocab_size,
            lowercase=lowercase,
            strip_accents=strip_accents,
            split_cjk=split_cjk,
            words_of=words_of,
            sample_bytes=sample_bytes,
        )
        backend = wordpiece.build(
            vocab, lowercase=lowercase, strip_accents=strip_accents, split_cjk=split_cjk
        )
        return cls(backend, segmenter=segmenter)

    @classmethod
    def _from_directory(cls, directory: Path) -> Self:
        # The tokenizer of a pair may lie beside its halves or inside either.
        for place in (directory, directory / "generator", directory / "discriminator"):
            if any((place / name).is_file() for name in (wordpiece.TOKENIZER_JSON, wordpiece.VOCAB_TXT)):
                return cls(*wordpiece.load(place), _segmenter(place))
        return cls(*wordpiece.load(directory))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`, which Transformers reads."""
        path = Path(directory)
        vocab = self._backend.get_vocab(with_added_tokens=False)
        lines = sorted(vocab, key=vocab.__getitem__)
        if sorted(vocab.values()) == list(range(len(vocab))):
            write_atomically(path / wordpiece.VOCAB_TXT, "".join(line + "\n" for line in lines))
        write_atomically(path / wordpiece.TOKENIZER_JSON, self._backend.to_str(pretty=True) + "\n")
        write_json(path / wordpiece.TOKENIZER_CONFIG, self._config())

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {f"{role}_token": name for role, name in self._names.items()}
        if self._segmentation is not None:
            config[SEGMENTER] = self._segmentation.name
        normalizer = json.loads(self._backend.to_str())["normalizer"] or {}
        if normalizer.get("type") != "BertNormalizer":
            # Not BERT's own pipeline: this class takes tokenizer.json as it is.
            return config | {"tokenizer_class": "PreTrainedTokenizerFast"}
        return config | {
            "tokenizer_class": "ElectraTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }

    @property
    def vocab_size(self) -> int:
        return self._size

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            value = json.loads(self._backend.to_str())
            parts = [value[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "model")]
            if self._segmentation is not None:
                parts.append(self._segmentation.name)
            canonical = json.dumps([*parts, self._names], sort_keys=True)
            self._fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
        return self._fingerprint

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The `tokenizers` library's WordPiece; not to be changed."""
        return self._backend

    @property
    def names(self) -> dict[str, str]:
        """What the special tokens are called, by role: `pad`, `unk`, `cls`, `sep`, `mask`."""
        return dict(self._names)

    @property
    def segmenter(self) -> str | None:
        """The name of what cuts texts into words first, if anything does."""
        return None if self._segmentation is None else self._segmentation.name

    @property
    def cls_token(self) -> str:
        return self._names["cls"]

    @property
    def sep_token(self) -> str:
        return self._names["sep"]

    @property
    def mask_token(self) -> str:
        return self._names["mask"]

    def normalize(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        if self._segmentation is not None:
            return [ids for ids, _ in self._encode_words(texts, self._segmentation)]
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_with_offsets(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """The ids of each text, nothing put around them, and where each stands: [start, end) in characters."""
        try:
            if self._segmentation is not None:
                return self._encode_words(texts, self._segmentation)
            encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        except Exception:
            self._plain(texts)  # says what is wrong
            raise
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def _encode_words(
        self, texts: list[str], segmentation: Segmentation
    ) -> list[tuple[list[int], list[tuple[int, int]]]]:
        rows = [segmentation.words(text) for text in texts]
        encodings = self._backend.encode_batch(
            [[word.text for word in row] for row in rows], is_pretokenized=True, add_special_tokens=False
        )
        # Offsets are inside the words.
        return [
            (
                encoding.ids,
                [
                    (row[word].start + start, row[word].start + end)
                    for word, (start, end) in zip(
                        cast("list[int]", encoding.word_ids), encoding.offsets, strict=True
                    )
                ],
            )
            for row, encoding in zip(rows, encodings, strict=True)
        ]

    def _with_special(self, first: list[int], second: list[int] | None) -> list[int]:
        row = [self.cls_token_id, *first, self.sep_token_id]
        return row if second is None else [*row, *second, self.sep_token_id]

    def _type_ids(self, first: int, second: int | None) -> list[int]:
        return [0] * (first + 2) + ([] if second is None else [1] * (second + 1))

    def _decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
        texts: list[str] = self._backend.decode_batch(rows, skip_special_tokens=skip_special_tokens)
        return texts

    def _token(self, token_id: int) -> str | None:
        token: str | None = self._backend.id_to_token(token_id)
        return token

    def _id(self, token: str) -> int | None:
        token_id: int | None = self._backend.token_to_id(token)
        return token_id


def _segmenter(directory: Path) -> str | None:
    path = directory / wordpiece.TOKENIZER_CONFIG
    name = read_json(path).get(SEGMENTER) if path.is_file() else None
    return None if name is None else str(name)
