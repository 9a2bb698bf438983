"""Unigram vocabularies as the `tokenizers` library, and so Transformers, keeps them: `tokenizer.json`."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from unmask.errors import UserError
from unmask.text.unigram import (
    BYTE,
    CONTROL,
    NORMAL,
    SENTINEL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    UnigramVocabulary,
    proto,
)

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


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
        while pieces and len(pieces) - 1 in added and SENTINEL.fullmatch(pieces[-1][0]):
            pieces.pop()
        model = proto.ModelProto()
        model.trainer_spec.model_type = proto.TrainerSpec.UNIGRAM
        model.trainer_spec.byte_fallback = bool(unigram.get("byte_fallback"))
        for index, (piece, score) in enumerate(pieces):
            kind = _piece_type(index, piece, unigram, added)
            is_sentinel = SENTINEL.fullmatch(piece) is not None
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
