"""SentencePiece Unigram vocabularies with T5's sentinels: text to ids and back.

Whatever file it came from, text is encoded by the `sentencepiece` library: that is what Google's models were
trained with, and it is several times faster than the other libraries. A `tokenizer.json` is turned into the
SentencePiece model that it was made from (`unigram_json.py`).

Sentinels are added as Google's own code does (seqio, `vocabularies.py`): as user-defined pieces
`▁<extra_id_N>`, which swallow the space before them and leave the text after them as it is, so that
`<extra_id_0>. Hello` is [32099, 5, 8774]. Google's code takes a sentinel inside a word for plain text; here
it is a sentinel there too.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from typing import Any

import numpy as np
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from unmask.errors import UserError

proto: Any = sentencepiece_model_pb2  # its classes are made at import, unknown to type checkers

SPACE = "▁"  # how SentencePiece writes a space
_SPACE_BYTES = [f"<0x{byte:02X}>" for byte in SPACE.encode()]
SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")

# Starting threads takes 60 µs, a sentence 3.
_FEW = 16

# SentencePiece's types of pieces (sentencepiece_model.proto).
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def sentinel(number: int) -> str:
    """The token of a sentinel, as it is written in text."""
    return f"<extra_id_{number}>"


def parse_model(data: bytes, name: str) -> Any:
    """A SentencePiece model from the bytes of a `spiece.model`.

    Raises:
        UserError: the bytes are no SentencePiece Unigram model.
    """
    model = proto.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own error type differs between its implementations
        raise UserError(f"{name} is no SentencePiece model: {error}") from None
    if not model.pieces:
        raise UserError(f"{name} is no SentencePiece model: it has no pieces")
    if model.trainer_spec.model_type != proto.TrainerSpec.UNIGRAM:
        raise UserError(f"{name} is a SentencePiece model, but not a Unigram one, which T5 needs")
    return model


class UnigramVocabulary:
    """Pieces, sentinels and added tokens, and the mapping between text and ids.

    Args:
        model: the SentencePiece model (a `ModelProto`), without what is appended.
        appended: tokens after the model's own pieces, in the order of their ids.

    Raises:
        UserError: the model lacks `<pad>`, `</s>` or `<unk>`, or cannot be loaded.
    """

    def __init__(self, model: Any, appended: list[str]) -> None:
        self.model = model
        self.appended = appended
        self.base_size = len(model.pieces)
        self.size = self.base_size + len(appended)
        self.byte_fallback = any(piece.type == BYTE for piece in model.pieces)
        spec = model.normalizer_spec
        #: Nothing of the text is changed or added on the way to ids, so that ids decode to it exactly.
        self.lossless = self.byte_fallback and not (
            spec.add_dummy_prefix or spec.remove_extra_whitespaces or spec.precompiled_charsmap
        )
        names = [piece.piece for piece in model.pieces] + appended
        found = {m.group(1): i for i, name in enumerate(names) if (m := SENTINEL.fullmatch(name))}
        #: Sentinel number to id.
        self.sentinels = {int(number): token_id for number, token_id in sorted(found.items())}
        #: Tokens added after training that are not sentinels: text is split at them.
        self.added = {n: self.base_size + i for i, n in enumerate(appended) if not SENTINEL.fullmatch(n)}
        self._split = re.compile(
            "(" + "|".join(map(re.escape, sorted(self.added, key=len, reverse=True))) + ")"
        )
        self._alias: dict[int, int] = {}
        self._processor = self._load()
        self._bare = {token_id: alias for alias, token_id in self._alias.items()}
        self.pad_id, self.eos_id, self.unk_id = map(self._required, ("<pad>", "</s>", "<unk>"))
        # Rendered by their names: SentencePiece writes nothing for them.
        self._literal = {self.pad_id: "<pad>", self.eos_id: "</s>"} | {i: n for n, i in self.added.items()}
        self.special_ids = frozenset({self.pad_id, self.eos_id, self.unk_id, *self.sentinels.values()})
        # A piece to put before a run of pieces that does not begin the text, so that its space is kept.
        self._anchor = next(
            (i for i, p in enumerate(model.pieces) if p.type == NORMAL and SPACE not in p.piece), None
        )

    def _load(self) -> SentencePieceProcessor:
        model = proto.ModelProto()
        model.CopyFrom(self.model)
        for name in self.appended:
            is_sentinel = SENTINEL.fullmatch(name) is not None
            model.pieces.add(
                piece=SPACE + name if is_sentinel else name, type=USER_DEFINED if is_sentinel else CONTROL
            )
        # The same sentinels without a space before them get ids of their own, mapped back after encoding.
        present = {piece.piece for piece in model.pieces}
        for number, token_id in self.sentinels.items():
            if sentinel(number) not in present:
                self._alias[len(model.pieces)] = token_id
                model.pieces.add(piece=sentinel(number), type=USER_DEFINED)
        processor = SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model.SerializeToString())
        except (RuntimeError, OSError) as error:
            raise UserError(f"the SentencePiece model cannot be loaded: {error}") from None
        return processor

    def __reduce__(self) -> tuple[Any, ...]:
        # For worker processes; protobuf's classes cannot be pickled.
        return _unpickle, (self.spiece_model(), self.appended)

    def _required(self, name: str) -> int:
        token_id = self.id(name)
        if token_id is None:
            raise UserError(f"the vocabulary has no {name!r}, which T5 needs")
        return token_id

    # -- text to ids and back ------------------------------------------------------------------------------

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, on all cores; nothing is put around them."""
        if self.added:
            return [self._encode_around_added(text) for text in texts]
        if len(texts) < _FEW:
            rows: list[list[int]] = [self._processor.encode(text) for text in texts]
        else:
            rows = self._processor.encode(texts, num_threads=_threads())
        for index, text in enumerate(texts):
            if self._is_special(text):
                rows[index] = self._encode_special(text, rows[index])
        return rows

    def encode_arrays(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text, (length,) int32, on this thread and, without added tokens, outside Python's lock."""
        if self.added:
            return [np.array(row, np.int32) for row in self.encode(texts)]
        rows: list[np.ndarray] = self._processor.encode(texts, num_threads=1, return_type="numpy")
        for index, text in enumerate(texts):
            if self._is_special(text):
                rows[index] = np.array(self._encode_special(text, rows[index].tolist()), np.int32)
        return rows

    def _is_special(self, text: str) -> bool:
        """Whether SentencePiece's ids are not yet those of the text."""
        return "<extra_id_" in text or (self.lossless and SPACE in text)

    def _encode_special(self, text: str, ids: list[int]) -> list[int]:
        return self._encode_around_blocks(text) if self.lossless and SPACE in text else self._merge(ids)

    def normalize(self, text: str) -> str:
        """The text in the Unicode form that pieces are looked up in."""
        if self.lossless:
            return text
        return str(self._processor.normalize(text)).replace(SPACE, " ")

    def _merge(self, ids: list[int]) -> list[int]:
        return [self._alias.get(token_id, token_id) for token_id in ids]

    def _encode_around_added(self, text: str) -> list[int]:
        """As Transformers does: cut at the added tokens, each part between them is a text of its own."""
        ids: list[int] = []
        for part in self._split.split(text):
            ids += [self.added[part]] if part in self.added else self._merge(self._processor.encode(part))
        return ids

    def _encode_around_blocks(self, text: str) -> list[int]:
        """U+2581 itself, which SentencePiece takes for a space, written as its bytes."""
        block = [self._processor.piece_to_id(name) for name in _SPACE_BYTES]
        ids: list[int] = []
        for index, part in enumerate(text.split(SPACE)):
            ids += (block if index else []) + self._merge(self._processor.encode(part))
        return ids

    def decode(self, rows: list[list[int]], skip_special: bool) -> list[str]:
        """The text of each row as SentencePiece gives it, special and added tokens by their names."""
        skipped = self.special_ids if skip_special else frozenset[int]()
        rows = [[i for i in row if i < self.size and i not in skipped] for row in rows]
        for row in rows:
            # No space before a sentinel that begins the text.
            row[:1] = [self._bare.get(token_id, token_id) for token_id in row[:1]]
        if all(self._literal.keys().isdisjoint(row) for row in rows):
            if len(rows) < _FEW:
                return [self._processor.decode(row) for row in rows]
            texts: list[str] = self._processor.decode(rows, num_threads=_threads())
            return texts
        return [self._decode_around_literals(row) for row in rows]

    def _decode_around_literals(self, ids: list[int]) -> str:
        text, run = "", list[int]()
        for token_id in ids:
            if token_id in self._literal:
                text += self._decode_run(run, bool(text)) + self._literal[token_id]
                run = []
            else:
                run.append(token_id)
        return text + self._decode_run(run, bool(text))

    def _decode_run(self, run: list[int], inside: bool) -> str:
        if not inside or not run or self._anchor is None:
            return str(self._processor.decode(run))
        return str(self._processor.decode([self._anchor, *run]))[len(self.model.pieces[self._anchor].piece) :]

    def token(self, token_id: int) -> str | None:
        """The token of an id; sentinels without the mark of a space; None beyond the vocabulary."""
        if token_id >= self.size:
            return None
        name = (
            self.model.pieces[token_id].piece
            if token_id < self.base_size
            else self.appended[token_id - self.base_size]
        )
        return str(name[1:] if name.startswith(SPACE) and SENTINEL.fullmatch(name) else name)

    def id(self, token: str) -> int | None:
        """The id of a token, or None."""
        if match := SENTINEL.fullmatch(token):
            return self.sentinels.get(int(match.group(1)))
        if token in self.added:
            return self.added[token]
        token_id = int(self._processor.piece_to_id(token))
        # SentencePiece answers with the unknown id for what it does not have.
        return token_id if token_id < self.size and self.token(token_id) == token else None

    # -- files ---------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """SHA-256 of what determines ids, whichever kind of file it was read from."""
        digest = hashlib.sha256(b"unigram 1")
        for token_id in range(self.size):
            name = (self.token(token_id) or "").encode()
            digest.update(b"%d:%b%b" % (len(name), name, self._role(token_id)))
        spec = self.model.normalizer_spec
        digest.update(bytes([spec.add_dummy_prefix, spec.remove_extra_whitespaces]))
        digest.update(hashlib.sha256(spec.precompiled_charsmap).digest())
        return digest.hexdigest()

    def _role(self, token_id: int) -> bytes:
        if token_id in self.special_ids:
            return b"special"
        if token_id >= self.base_size:
            return b"added"
        piece = self.model.pieces[token_id]
        # Only scores of normal pieces take part in finding the best segmentation.
        return struct.pack("<f", piece.score) if piece.type == NORMAL else b"%d" % piece.type

    def spiece_model(self) -> bytes:
        """The SentencePiece model as a file holds it, without sentinels that were appended."""
        return bytes(self.model.SerializeToString(deterministic=True))


def _threads() -> int:
    """All cores, unless the switch of the `tokenizers` library says that this process is one of many."""
    return 1 if os.environ.get("TOKENIZERS_PARALLELISM", "").lower() in ("false", "0", "no", "off") else -1


def _unpickle(data: bytes, appended: list[str]) -> UnigramVocabulary:
    return UnigramVocabulary(parse_model(data, "the pickled vocabulary"), appended)
