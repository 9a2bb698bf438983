"""SentencePiece Unigram vocabularies with T5's sentinels: `spiece.model` or `tokenizer.json` to ids and back.

Whatever file it came from, text is encoded by the `sentencepiece` library: that is what Google's models were
trained with, and it is several times faster than the other libraries. A `tokenizer.json` is turned into the
SentencePiece model it was made from.

Sentinels are added as Google's own code does (seqio, `vocabularies.py`): as user-defined pieces
`▁<extra_id_N>`, which swallow the space before them and leave the text after them as it is, so that
`<extra_id_0>. Hello` is [32099, 5, 8774]. Google's code takes a sentinel inside a word for plain text; here it
is a sentinel there too.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Mapping
from typing import Any

from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from unmask.errors import UserError

SPACE = "▁"  # how SentencePiece writes a space
_SPACE_BYTES = [f"<0x{byte:02X}>" for byte in SPACE.encode()]
_SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")

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
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own error type differs between its implementations
        raise UserError(f"{name} is no SentencePiece model: {error}") from None
    if not model.pieces:
        raise UserError(f"{name} is no SentencePiece model: it has no pieces")
    if model.trainer_spec.model_type != sentencepiece_model_pb2.TrainerSpec.UNIGRAM:
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
        found = {m.group(1): i for i, name in enumerate(names) if (m := _SENTINEL.fullmatch(name))}
        #: Sentinel number to id.
        self.sentinels = {int(number): token_id for number, token_id in sorted(found.items())}
        #: Tokens added after training that are not sentinels: text is split at them.
        self.added = {n: self.base_size + i for i, n in enumerate(appended) if not _SENTINEL.fullmatch(n)}
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
        model = sentencepiece_model_pb2.ModelProto()
        model.CopyFrom(self.model)
        for name in self.appended:
            is_sentinel = _SENTINEL.fullmatch(name) is not None
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
        rows: list[list[int]] = self._processor.encode(texts, num_threads=-1)
        for index, text in enumerate(texts):
            if self.lossless and SPACE in text:
                rows[index] = self._encode_around_blocks(text)
            elif "<extra_id_" in text:
                rows[index] = self._merge(rows[index])
        return rows

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
            texts: list[str] = self._processor.decode(rows) if rows else []
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
        return str(name[1:] if name.startswith(SPACE) and _SENTINEL.fullmatch(name) else name)

    def id(self, token: str) -> int | None:
        """The id of a token, or None."""
        if match := _SENTINEL.fullmatch(token):
            return self.sentinels.get(int(match.group(1)))
        if token in self.added:
            return self.added[token]
        token_id = int(self._processor.piece_to_id(token))
        # SentencePiece answers with the unknown id for what it does not have.
        return token_id if token_id < self.size and self.token(token_id) == token else None

    # -- files ---------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """SHA-256 of what determines ids, the same for a `spiece.model` and the `tokenizer.json` made from it."""
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


# -- tokenizer.json ----------------------------------------------------------------------------------------


def to_tokenizer_json(vocabulary: UnigramVocabulary) -> dict[str, Any]:
    """The same tokenizer for the `tokenizers` library, and so for Transformers, with the same ids.

    What that library cannot express: U+2581 in a text is a space there; more than one space or a line break
    before a sentinel is swallowed; its Unicode normalisation goes by grapheme clusters, and differs for a few
    combining marks; and it takes `</s>`, `<pad>` and `<unk>` in a text for these tokens.
    """
    spec = vocabulary.model.normalizer_spec
    normalizers: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        normalizers.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
        normalizers.append({"type": "Strip", "strip_left": False, "strip_right": True})
    # "first": no space is put between a sentinel and what follows it. Parts between other added tokens are
    # texts of their own.
    prepend = ("always" if vocabulary.added else "first") if spec.add_dummy_prefix else "never"
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": prepend}
    eos = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        # Pieces of several spaces exist only where runs of spaces are kept.
        "pre_tokenizer": metaspace | {"split": spec.remove_extra_whitespaces},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [a, eos],
            "pair": [a, eos, b, eos],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [vocabulary.eos_id], "tokens": ["</s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [metaspace | {"split": True}, {"type": "ByteFallback"}, {"type": "Fuse"}],
        },
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk_id,
            "vocab": [_scored(vocabulary, index) for index in range(vocabulary.base_size)],
            "byte_fallback": vocabulary.byte_fallback,
        },
    }


def _scored(vocabulary: UnigramVocabulary, index: int) -> list[Any]:
    piece = vocabulary.model.pieces[index]
    # The other library would match the name of a byte in a text: make that never worth it.
    return [vocabulary.token(index), -1e4 if piece.type == BYTE else piece.score]


def _added_tokens(vocabulary: UnigramVocabulary) -> list[dict[str, Any]]:
    tokens: list[tuple[int, str, bool, bool]] = [
        (token_id, vocabulary.token(token_id) or "", True, token_id in vocabulary.sentinels.values())
        for token_id in vocabulary.special_ids
    ]
    tokens += [(token_id, name, False, False) for name, token_id in vocabulary.added.items()]
    tokens += [
        (i, piece.piece, False, False)
        for i, piece in enumerate(vocabulary.model.pieces)
        if piece.type == USER_DEFINED and i not in vocabulary.special_ids
    ]
    return [
        {
            "id": token_id,
            "content": content,
            "single_word": False,
            "lstrip": lstrip,
            "rstrip": False,
            "normalized": False,
            "special": special,
        }
        for token_id, content, special, lstrip in sorted(tokens)
    ]


def from_tokenizer_json(value: Mapping[str, Any], name: str) -> tuple[Any, list[str]]:
    """The SentencePiece model and the appended tokens that a `tokenizer.json` describes.

    Raises:
        UserError: it is not a Unigram vocabulary in SentencePiece's manner.
    """
    try:
        unigram = value["model"]
        if unigram["type"] != "Unigram":
            raise UserError(f"{name} holds a {unigram['type']} vocabulary: T5 needs Unigram")
        added = {int(token["id"]): token for token in value.get("added_tokens") or []}
        # The published file lists the appended sentinels among the pieces too.
        pieces = list(unigram["vocab"])
        while pieces and len(pieces) - 1 in added and _SENTINEL.fullmatch(pieces[-1][0]):
            pieces.pop()
        model = sentencepiece_model_pb2.ModelProto()
        model.trainer_spec.model_type = sentencepiece_model_pb2.TrainerSpec.UNIGRAM
        model.trainer_spec.byte_fallback = bool(unigram.get("byte_fallback"))
        for index, (piece, score) in enumerate(pieces):
            kind = _piece_type(index, piece, unigram, added)
            is_sentinel = _SENTINEL.fullmatch(piece) is not None
            model.pieces.add(
                piece=SPACE + piece if is_sentinel and not piece.startswith(SPACE) else piece,
                score=score if kind == NORMAL else 0.0,
                type=USER_DEFINED if is_sentinel else kind,
            )
        _normalization(model.normalizer_spec, value, name)
        return model, appended_tokens(added_tokens(value), len(model.pieces), name)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{name} is no tokenizer file that can be read: {type(error).__name__} {error}"
        ) from None


def _piece_type(index: int, piece: str, unigram: Mapping[str, Any], added: Mapping[int, Any]) -> int:
    if index == unigram["unk_id"]:
        return UNKNOWN
    if unigram.get("byte_fallback") and _BYTE.fullmatch(piece):
        return BYTE
    if index in added:
        return CONTROL if added[index].get("special") else USER_DEFINED
    return NORMAL


def _normalization(spec: Any, value: Mapping[str, Any], name: str) -> None:
    """What happens to text before it is cut into pieces, read from the steps that mean it there."""
    steps = [
        *_steps(value.get("normalizer"), "normalizers"),
        *_steps(value.get("pre_tokenizer"), "pretokenizers"),
    ]
    metaspace = [step for step in steps if step["type"] == "Metaspace"]
    if not metaspace:
        raise UserError(f"{name} does not mark spaces as SentencePiece does (no Metaspace step)")
    spec.name = "from tokenizer.json"
    spec.escape_whitespaces = True
    # Files from before 2024 say add_prefix_space instead.
    spec.add_dummy_prefix = all(
        step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space", True)
        for step in metaspace
    )
    spec.remove_extra_whitespaces = any(
        step["type"] == "WhitespaceSplit"
        or (step["type"] == "Replace" and step["pattern"].get("Regex", "").startswith(" {2"))
        for step in steps
    )
    for step in steps:
        if step["type"] == "Precompiled":
            spec.precompiled_charsmap = base64.b64decode(step["precompiled_charsmap"])


def _steps(value: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    return list(value[inner]) if value["type"] == "Sequence" else [value]


def added_tokens(value: Mapping[str, Any]) -> dict[int, str]:
    """Id and text of each added token of a `tokenizer.json`."""
    return {int(token["id"]): str(token["content"]) for token in value.get("added_tokens") or []}


def appended_tokens(tokens: Mapping[int, str], base_size: int, name: str) -> list[str]:
    """The tokens with ids after the model's own pieces, in order.

    Raises:
        UserError: an id is left out between them.
    """
    appended = sorted((token_id, content) for token_id, content in tokens.items() if token_id >= base_size)
    for expected, (token_id, content) in enumerate(appended, start=base_size):
        if token_id != expected:
            raise UserError(
                f"{name}: the added token {content!r} has id {token_id} where {expected} would be next"
            )
    return [content for _, content in appended]
