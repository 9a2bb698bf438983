"""Another vocabulary for a T5: fewer pieces, or more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sentencepiece import SentencePieceProcessor

from unmask.t5.tokenizer import T5Tokenizer
from unmask.text.surgery import ASCII, Sources
from unmask.text.unigram import NORMAL, SPACE, UnigramVocabulary, proto

#: Tensors with a row for each id, by how their names on disk end.
TABLES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


def indispensable(tokenizer: T5Tokenizer, characters: set[str]) -> set[int]:
    """Ids that every smaller vocabulary keeps.

    Those are the special tokens, sentinels, bytes and other pieces that no text has to contain; single characters,
    ASCII's and the given ones; and the normal pieces with the lowest and the highest score, from which SentencePiece
    reckons what an unknown character and a sentinel cost.
    """
    vocabulary = tokenizer.vocabulary
    pieces = list(vocabulary.model.pieces)
    normal = [i for i, piece in enumerate(pieces) if piece.type == NORMAL]
    spelled = characters | ASCII | {SPACE}
    ends = (min, max)
    return {
        *range(vocabulary.base_size, vocabulary.size),
        *(i for i, piece in enumerate(pieces) if piece.type != NORMAL or piece.piece in spelled),
        *(end(normal, key=lambda i: pieces[i].score) for end in ends if normal),
        *vocabulary.special_ids,
    }


def trimmed(tokenizer: T5Tokenizer, kept: Sequence[int]) -> T5Tokenizer:
    """The tokenizer of the given ids, in ascending order, which are numbered anew in this order."""
    vocabulary = tokenizer.vocabulary
    pieces = vocabulary.model.pieces
    model = _with_pieces(vocabulary.model, [pieces[i] for i in kept if i < vocabulary.base_size])
    return T5Tokenizer(UnigramVocabulary(model, vocabulary.appended))


def extended(
    tokenizer: T5Tokenizer, new: Sequence[tuple[str, tuple[int, ...]]]
) -> tuple[T5Tokenizer, Sources]:
    """The tokenizer with more pieces, between its own and the sentinels, and what each id is made from.

    A new piece scores as the rarest of those that it joins, so that it is always preferred to them.

    Args:
        new: pieces that it lacks, each with the ids that stood for it.
    """
    vocabulary = tokenizer.vocabulary
    pieces = list(vocabulary.model.pieces)
    lowest = min((piece.score for piece in pieces if piece.type == NORMAL), default=-1.0)
    added = []
    for text, ids in new:
        scores = [pieces[i].score for i in ids if i < len(pieces) and pieces[i].type == NORMAL]
        # Bytes and unknown characters cost more than any piece.
        score = min(scores) if scores and len(scores) == len(ids) else lowest
        added.append(proto.ModelProto.SentencePiece(piece=text, score=score, type=NORMAL))
    model = _with_pieces(vocabulary.model, [*pieces, *added])
    sources: Sources = [
        *((i,) for i in range(vocabulary.base_size)),
        *(ids for _, ids in new),
        *((i,) for i in range(vocabulary.base_size, vocabulary.size)),
    ]
    return T5Tokenizer(UnigramVocabulary(model, vocabulary.appended)), sources


def _with_pieces(model: Any, pieces: Sequence[Any]) -> Any:
    made = proto.ModelProto()
    made.CopyFrom(model)
    del made.pieces[:]
    made.pieces.extend(pieces)
    made.trainer_spec.vocab_size = len(pieces)
    return made


def pieces_of_words(tokenizer: T5Tokenizer, words: Iterable[str]) -> list[tuple[str, tuple[int, ...]]]:
    """The pieces that words need, which the vocabulary lacks, with the ids that stand for them now.

    They are two a word: after a space, and without one, as after a line break or a bracket.
    """
    segment = _segmenter(tokenizer.vocabulary)
    found: dict[str, tuple[int, ...]] = {}
    for word in words:
        for piece in (SPACE + tokenizer.normalize(word).strip(), tokenizer.normalize(word).strip()):
            ids = segment(piece)
            if len(ids) > 1 or ids == (tokenizer.unk_token_id,):
                found[piece] = ids
    return list(found.items())


def _segmenter(vocabulary: UnigramVocabulary) -> Any:
    """From a piece's text to the ids of the pieces that it is made of, nothing put before it."""
    model = proto.ModelProto()
    model.CopyFrom(vocabulary.model)
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return lambda piece: tuple(processor.encode(piece.replace(SPACE, " ")))


def missing(tokenizer: T5Tokenizer, characters: Iterable[str]) -> list[str]:
    """Pieces for characters that the vocabulary cannot write, where it has no bytes for them."""
    if tokenizer.vocabulary.byte_fallback:
        return []
    return [
        character
        for character in characters
        if tokenizer.convert_tokens_to_ids(character) == tokenizer.unk_token_id
    ]


def mergeable(tokenizer: T5Tokenizer, row: Sequence[int]) -> list[list[int]]:
    """Runs of ids of a text that a new piece may join: words, with the space before them."""
    pieces = tokenizer.vocabulary.model.pieces
    runs: list[list[int]] = [[]]
    for i in row:
        is_normal = i < len(pieces) and pieces[i].type == NORMAL
        if not is_normal:
            runs.append([])
        elif pieces[i].piece.startswith(SPACE):
            runs.append([i])
        else:
            runs[-1].append(i)
    return runs


def joined(tokenizer: T5Tokenizer, ids: Sequence[int]) -> str:
    """The piece that stands for what several do."""
    return "".join(tokenizer.vocabulary.model.pieces[i].piece for i in ids)
