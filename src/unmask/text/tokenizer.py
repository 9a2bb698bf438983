"""What every tokenizer here can do, whatever its vocabulary is made of."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

import numpy as np

from unmask.errors import UserError
from unmask.hub import find_model, tokenizer_directory

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

Padding = bool | Literal["longest", "max_length"]
Truncation = bool | Literal["longest_first", "only_first", "only_second"]


class BatchEncoding(dict[str, Any]):
    """What calling a tokenizer returns: lists or tensors by name, also as attributes.

    `input_ids` and `attention_mask` (1 = real token, 0 = padding) are always there, `token_type_ids` where
    the family has them.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, device: Any) -> BatchEncoding:
        """The same with every tensor on `device`."""
        return BatchEncoding({k: v.to(device) if hasattr(v, "to") else v for k, v in self.items()})


class Tokenizer(ABC):
    """Text to token ids and back.

    A subclass says how plain text becomes ids (`_encode_plain`), what is put around them (`_with_special`)
    and how ids become text (`_decode`); everything a user calls is here.
    """

    pad_token_id: int
    unk_token_id: int
    eos_token_id: int | None = None
    #: Ids that stand for no text of their own: padding, ends, masks, sentinels, unknown.
    special_ids: frozenset[int]

    # -- what a family defines -----------------------------------------------------------------------------

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The largest id + 1, special tokens and sentinels included."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of all that determines ids: equal fingerprints, equal ids for every text."""

    @abstractmethod
    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the tokenizer's files into a directory (made if absent), each whole or not at all."""

    @classmethod
    @abstractmethod
    def _from_directory(cls, directory: Path) -> Self: ...

    @abstractmethod
    def _encode_plain(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, nothing put around them, in parallel where there are many."""

    @abstractmethod
    def _with_special(self, first: list[int], second: list[int] | None) -> list[int]: ...

    @abstractmethod
    def _decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]: ...

    @abstractmethod
    def _token(self, token_id: int) -> str | None: ...

    @abstractmethod
    def _id(self, token: str) -> int | None: ...

    def _encode_arrays(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array(row, np.int32) for row in self._encode_plain(texts)]

    @property
    def releases_gil(self) -> bool:
        """Whether `encode_arrays` keeps to its own thread and works outside Python's lock: several threads that
        call it are as fast as processes."""
        return False

    def normalize(self, text: str) -> str:
        """The text as the vocabulary sees it, after what the tokenizer folds: case, accents, Unicode forms."""
        return text

    def _type_ids(self, first: int, second: int | None) -> list[int] | None:
        """Segment of each token for plain lengths `first` and `second`; None where the family has none."""
        return None

    # -- loading -------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], *, revision: str | None = None) -> Self:
        """The tokenizer of a model directory, of a cached name, or of a name on the Hub.

        Raises:
            UserError: there is no such model, it has no tokenizer files, or they cannot be read.
        """
        return cls._from_directory(tokenizer_directory(find_model(name_or_path, revision=revision)))

    # -- text to ids ---------------------------------------------------------------------------------------

    @overload
    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        add_special_tokens: bool = True,
        truncation: Truncation = False,
        max_length: int | None = None,
        return_tensors: None = None,
    ) -> list[int]: ...

    @overload
    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        add_special_tokens: bool = True,
        truncation: Truncation = False,
        max_length: int | None = None,
        return_tensors: Literal["pt"],
    ) -> Tensor: ...

    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        add_special_tokens: bool = True,
        truncation: Truncation = False,
        max_length: int | None = None,
        return_tensors: Literal["pt"] | None = None,
    ) -> list[int] | Tensor:
        """The ids of one text: a list, or with `return_tensors="pt"` an int64 tensor of shape (1, length)."""
        encoded = self(
            text,
            text_pair,
            add_special_tokens=add_special_tokens,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
        )
        ids: list[int] | Tensor = encoded["input_ids"]
        return ids

    def encode_batch(self, texts: Iterable[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """The ids of many texts, on all cores."""
        rows = self._plain(_texts(texts))
        return [self._with_special(row, None) for row in rows] if add_special_tokens else rows

    def encode_arrays(self, texts: Iterable[str]) -> list[np.ndarray]:
        """The ids of many texts without special tokens: (length,) int32 each."""
        return self._checked(self._encode_arrays, _texts(texts))

    def encode_pairs(
        self, first: Iterable[str], second: Iterable[str], *, add_special_tokens: bool = True
    ) -> list[list[int]]:
        """The ids of many pairs of texts (ELECTRA: `[CLS] A [SEP] B [SEP]`; T5: `A </s> B </s>`)."""
        one, two = _texts(first), _texts(second)
        _check_pairs(len(one), len(two))
        rows = zip(self._plain(one), self._plain(two), strict=True)
        if add_special_tokens:
            return [self._with_special(a, b) for a, b in rows]
        return [a + b for a, b in rows]

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: Padding = False,
        truncation: Truncation = False,
        max_length: int | None = None,
        return_tensors: Literal["pt"] | None = None,
    ) -> BatchEncoding:
        """Encode a text, or a list of texts, as users of Transformers know it.

        Args:
            text: one text or a list of them.
            text_pair: the second text of each, for tasks on pairs.
            add_special_tokens: put the family's special tokens around the text.
            padding: `True` or `"longest"` pads on the right to the longest of the batch, `"max_length"` to
                `max_length`.
            truncation: `True` or `"longest_first"` shortens the longer part until `max_length` holds, special
                tokens included; `"only_first"` and `"only_second"` shorten that part alone.
            max_length: in tokens.
            return_tensors: `"pt"` gives int64 tensors of shape (batch, length); one text is a batch of one.

        Raises:
            UserError: an unknown option, `truncation` without `max_length`, tensors from unequal lengths.
            TypeError: something that is not text.
        """
        _check_options(padding, truncation, max_length, return_tensors)
        single = isinstance(text, str)
        first = self._plain(_texts([text] if isinstance(text, str) else text))
        second: list[list[int]] | list[None] = [None] * len(first)
        if text_pair is not None:
            second = self._plain(_texts([text_pair] if isinstance(text_pair, str) else text_pair))
            _check_pairs(len(first), len(second))
        batch = self._assemble(first, second, add_special_tokens, truncation, max_length)
        self._pad(batch, padding, max_length)
        if return_tensors == "pt":
            return BatchEncoding({name: _tensor(rows) for name, rows in batch.items()})
        return BatchEncoding({name: rows[0] for name, rows in batch.items()} if single else batch)

    def _assemble(
        self,
        first: list[list[int]],
        second: Sequence[list[int] | None],
        add_special_tokens: bool,
        truncation: Truncation,
        max_length: int | None,
    ) -> dict[str, list[list[int]]]:
        batch: dict[str, list[list[int]]] = {"input_ids": []}
        for a, b in zip(first, second, strict=True):
            if truncation and max_length is not None:
                around = 0
                if add_special_tokens:
                    around = len(self._with_special([], None if b is None else []))
                a, b = _truncate(
                    a, b, max_length - around, "longest_first" if truncation is True else truncation
                )
            if add_special_tokens:
                batch["input_ids"].append(self._with_special(a, b))
                types = self._type_ids(len(a), None if b is None else len(b))
            else:
                batch["input_ids"].append(a + (b or []))
                types = None if self._type_ids(0, None) is None else [0] * len(a) + [1] * len(b or [])
            if types is not None:
                batch.setdefault("token_type_ids", []).append(types)
        batch["attention_mask"] = [[1] * len(row) for row in batch["input_ids"]]
        return batch

    def _pad(self, batch: dict[str, list[list[int]]], padding: Padding, max_length: int | None) -> None:
        if padding is False or not batch["input_ids"]:
            return
        longest = max(map(len, batch["input_ids"]))
        length = max_length if padding == "max_length" and max_length is not None else longest
        for name, rows in batch.items():
            fill = self.pad_token_id if name == "input_ids" else 0
            for row in rows:
                row.extend([fill] * (length - len(row)))

    def _plain(self, texts: list[str]) -> list[list[int]]:
        return self._checked(self._encode_plain, texts)

    @staticmethod
    def _checked(encode: Callable[[list[str]], T], texts: list[str]) -> T:
        try:
            return encode(texts)
        except Exception:
            # Both libraries answer a lone surrogate with an error that does not say what is wrong.
            _refuse_surrogates(texts)
            raise

    # -- ids to text ---------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int] | Tensor | int, skip_special_tokens: bool = False) -> str:
        """The text of one sequence of ids (a list, a one-dimensional tensor or array, or a single id).

        Ids beyond the vocabulary, as a model with a padded embedding can write, stand for nothing and are
        left out.

        Raises:
            UserError: a negative id, or ids of more than one sequence.
        """
        row = _row(ids)
        return self._decode([row], skip_special_tokens)[0]

    def batch_decode(
        self, batch: Iterable[Iterable[int]] | Tensor, skip_special_tokens: bool = False
    ) -> list[str]:
        """The texts of many sequences of ids."""
        return self._decode([_row(row) for row in batch], skip_special_tokens)

    @overload
    def convert_ids_to_tokens(self, ids: int) -> str | None: ...

    @overload
    def convert_ids_to_tokens(self, ids: Iterable[int] | Tensor) -> list[str | None]: ...

    def convert_ids_to_tokens(self, ids: int | Iterable[int] | Tensor) -> str | list[str | None] | None:
        """The token of an id, or of each of several; None for an id beyond the vocabulary."""
        if isinstance(ids, int):
            return self._token(ids)
        return [self._token(token_id) for token_id in _row(ids)]

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...  # type: ignore[overload-overlap]  # str iterates too

    @overload
    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> int | list[int]:
        """The id of a token, or of each of several; the unknown id for what is no token."""
        if isinstance(tokens, str):
            found = self._id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, without special tokens around them."""
        tokens = self.convert_ids_to_tokens(self._plain(_texts([text]))[0])
        return [token for token in tokens if token is not None]

    @property
    def pad_token(self) -> str:
        return self._token(self.pad_token_id) or ""

    @property
    def unk_token(self) -> str:
        return self._token(self.unk_token_id) or ""

    @property
    def eos_token(self) -> str | None:
        return None if self.eos_token_id is None else self._token(self.eos_token_id)

    def __len__(self) -> int:
        return self.vocab_size

    def __bool__(self) -> bool:
        # Without this, `tokenizer or default` would ask __len__, which reads as "is it empty?".
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]!r})"


def _texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("give a list of texts, not one str")
    try:
        rows = list(texts)
    except TypeError:
        raise TypeError(f"text must be a str or a list of str, not {type(texts).__name__}") from None
    for index, text in enumerate(rows):
        if not isinstance(text, str):
            raise TypeError(f"text {index} must be a str, not {type(text).__name__}")
    return rows


def _refuse_surrogates(texts: list[str]) -> None:
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"text {index} holds the lone surrogate U+{ord(text[error.start]):04X} at character "
                f"{error.start}, which is no Unicode text: repair it, for example with "
                "text.encode('utf-8', 'replace').decode()"
            ) from None


def _check_pairs(first: int, second: int) -> None:
    if first != second:
        raise UserError(f"{first} first texts but {second} second texts: give one second text for each first")


def _check_options(padding: Any, truncation: Any, max_length: int | None, return_tensors: Any) -> None:
    _check_choice("padding", padding, (False, True, "longest", "max_length"))
    _check_choice("truncation", truncation, (False, True, "longest_first", "only_first", "only_second"))
    _check_choice("return_tensors", return_tensors, (None, "pt"))
    if max_length is None and (truncation or padding == "max_length"):
        option = f"truncation={truncation!r}" if truncation else "padding='max_length'"
        raise UserError(f"{option} needs max_length (in tokens)")


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    # `in` would take 1 for True.
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise UserError(f"{name}={value!r} is unknown: use one of {', '.join(map(repr, choices))}")


def _truncate(
    first: list[int], second: list[int] | None, room: int, strategy: str
) -> tuple[list[int], list[int] | None]:
    """Shorten one or both so that they fit into `room` tokens; lengths as in the `tokenizers` library."""
    if room < 0:
        raise UserError(
            f"max_length leaves {room} tokens for the text: it must at least hold the special tokens"
        )
    a, b = len(first), len(second or [])
    if a + b <= room:
        return first, second
    if second is None:
        return first[:room], None
    if strategy == "longest_first":
        keep_short, keep_long = _share(min(a, b), room)
        a, b = (keep_short, keep_long) if a <= b else (keep_long, keep_short)
        return first[:a], second[:b]
    kept, name = (b, "first") if strategy == "only_first" else (a, "second")
    if kept > room:
        other = "second" if name == "first" else "first"
        raise UserError(f"truncation='only_{name}': the {other} text alone has {kept} tokens, and {room} fit")
    return (first[: room - b], second) if name == "first" else (first, second[: room - a])


def _share(short: int, room: int) -> tuple[int, int]:
    """How much of the shorter and of the longer part stays: the shorter whole, if it fits into half."""
    if short <= room // 2:
        return short, room - short
    return room // 2, room - room // 2


def _tensor(rows: list[list[int]]) -> Tensor:
    import torch

    if len({len(row) for row in rows}) > 1:
        raise UserError("texts of unequal length make no tensor: give padding=True")
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), -1)


def _row(ids: Any) -> list[int]:
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    row = [values] if isinstance(values, int) else list(values)
    row = [value.item() if hasattr(value, "item") else value for value in row]
    for value in row:
        if isinstance(value, list | tuple):
            raise UserError("decode takes one sequence of ids: use batch_decode for several")
        if not isinstance(value, int):
            raise TypeError(f"a token id must be an int, not {type(value).__name__}")
        if value < 0:
            hint = " (a label of -100 marks a position to ignore: replace it first)" if value == -100 else ""
            raise UserError(f"{value} is no token id{hint}")
    return row
