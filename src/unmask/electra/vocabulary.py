"""Another vocabulary for an ELECTRA: fewer pieces, or more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tokenizers

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.text.surgery import ASCII, Sources

#: Tensors with a row for each id, by how their names on disk end: ELECTRA's, and a BERT's masked-LM head.
TABLES = (
    "word_embeddings.weight",
    "generator_lm_head.weight",
    "generator_lm_head.bias",
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
)
_INNER = "##"


def indispensable(tokenizer: ElectraTokenizer, characters: set[str]) -> set[int]:
    """Ids that every smaller vocabulary keeps: special and added tokens; single characters, ASCII's and the given
    ones, as words and inside words."""
    spelled = {mark + character for character in characters | ASCII for mark in ("", _INNER)}
    found = {tokenizer.convert_tokens_to_ids(piece) for piece in spelled} - {tokenizer.unk_token_id}
    return found | tokenizer.special_ids | set(tokenizer.backend.get_added_tokens_decoder())


def trimmed(tokenizer: ElectraTokenizer, kept: Sequence[int]) -> ElectraTokenizer:
    """The tokenizer of the given ids, in ascending order, which are numbered anew in this order."""
    number = {old: new for new, old in enumerate(kept)}
    return _renumbered(
        tokenizer, lambda vocab: {piece: number[i] for piece, i in vocab.items() if i in number}, number
    )


def extended(
    tokenizer: ElectraTokenizer, new: Sequence[tuple[str, tuple[int, ...]]]
) -> tuple[ElectraTokenizer, Sources]:
    """The tokenizer with more pieces, after all that it has, and what each id is made from.

    Args:
        new: pieces that it lacks, each with the ids that stood for it.
    """
    size = tokenizer.vocab_size
    pieces = {piece: size + place for place, (piece, _) in enumerate(new)}
    same = {i: i for i in range(size)}
    made = _renumbered(tokenizer, lambda vocab: {**vocab, **pieces}, same)
    return made, [*((i,) for i in range(size)), *(ids for _, ids in new)]


def _renumbered(
    tokenizer: ElectraTokenizer,
    change: Callable[[dict[str, int]], dict[str, int]],
    number: Mapping[int, int],
) -> ElectraTokenizer:
    """The same pipeline over a changed vocabulary; `number` gives the new ids of special and added tokens."""
    value: dict[str, Any] = json.loads(tokenizer.backend.to_str())
    value["model"]["vocab"] = change(value["model"]["vocab"])
    for token in value["added_tokens"]:
        token["id"] = number[token["id"]]
    processor = value["post_processor"] or {}
    if processor.get("type") == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [number[i] for i in token["ids"]]
    for role in ("sep", "cls"):  # of BertProcessing
        if isinstance(processor.get(role), list):
            name, token_id = processor[role]
            processor[role] = [name, number[token_id]]
    backend = tokenizers.Tokenizer.from_str(json.dumps(value))
    return ElectraTokenizer(backend, tokenizer.names, tokenizer.segmenter)


def pieces_of_words(tokenizer: ElectraTokenizer, words: Iterable[str]) -> list[tuple[str, tuple[int, ...]]]:
    """The pieces that words need, which the vocabulary lacks, with the ids that stand for them now.

    Raises:
        UserError: a word that is parted before its pieces are looked up.
    """
    found: dict[str, tuple[int, ...]] = {}
    for word in words:
        piece = tokenizer.normalize(word).strip()
        parts = [part for part, _ in tokenizer.backend.pre_tokenizer.pre_tokenize_str(piece)]
        if len(parts) != 1:
            raise UserError(
                f"{word!r} is parted into {' '.join(parts) or 'nothing'} before pieces are looked up, and can be no "
                "piece: give its parts"
            )
        ids = tuple(tokenizer.encode(piece, add_special_tokens=False))
        if len(ids) > 1 or ids == (tokenizer.unk_token_id,):
            found[piece] = ids
    return list(found.items())


def missing(tokenizer: ElectraTokenizer, characters: Iterable[str]) -> list[str]:
    """Pieces for characters that the vocabulary cannot write: as words, and where they can be so, inside words."""
    found = []
    split = tokenizer.backend.pre_tokenizer.pre_tokenize_str
    for character in characters:
        forms = [character, *([_INNER + character] if len(split(f"a{character}")) == 1 else [])]
        found += [form for form in forms if tokenizer.convert_tokens_to_ids(form) == tokenizer.unk_token_id]
    return found


def mergeable(tokenizer: ElectraTokenizer, row: Sequence[int]) -> list[list[int]]:
    """Runs of ids of a text that a new piece may join: words."""
    runs: list[list[int]] = [[]]
    for i in row:
        if i in tokenizer.special_ids:
            runs.append([])
        elif (tokenizer.convert_ids_to_tokens(i) or "").startswith(_INNER):
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def joined(tokenizer: ElectraTokenizer, ids: Sequence[int]) -> str:
    """The piece that stands for what several do."""
    first, *rest = (tokenizer.convert_ids_to_tokens(i) or "" for i in ids)
    return first + "".join(piece.removeprefix(_INNER) for piece in rest)
