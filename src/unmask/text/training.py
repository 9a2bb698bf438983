"""Training vocabularies: SentencePiece Unigram for T5, WordPiece for ELECTRA.

The same texts give the same vocabulary, byte for byte, whatever their order and however many cores there are.
"""

from __future__ import annotations

import heapq
import io
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from unmask.errors import UserError
from unmask.text.wordpiece import SPECIAL_TOKENS

# Characters of text in one unit of sampling and training: a long document is cut at lines or words.
_PASSAGE = 4000

# Not the machine's number of cores: SentencePiece adds up its counts thread by thread, so that another number
# would give another vocabulary.
_THREADS = 16


def train_unigram(texts: Iterable[str], vocab_size: int, *, sample_bytes: int = 50_000_000) -> bytes:
    """Train a SentencePiece Unigram model for T5: `<pad>` 0, `</s>` 1, `<unk>` 2, no `<s>`.

    Nothing of a text is lost: there is no Unicode normalisation, spaces stay as they are, line breaks and tabs
    are pieces of their own, printable ASCII is always in, and any other character falls back to its bytes.
    Unlike in the published vocabulary, no space is put before the text's first word.

    Args:
        texts: documents.
        vocab_size: number of pieces, the 3 special ones, the line break, the tab and 256 bytes among them.
        sample_bytes: train on at most this much text, drawn by hash.

    Returns:
        The content of a `spiece.model` file.

    Raises:
        UserError: no text, or a size that does not suit it; says the largest or smallest that works.
    """
    from sentencepiece import SentencePieceTrainer

    passages = sample(texts, sample_bytes)
    written = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=map(_trainable, passages),
            model_writer=written,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            # Runs of spaces, as in indented code, may become pieces.
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n", "\t"],
            required_chars="".join(sorted(set(string.printable) - set(string.whitespace))),
            # Candidates to begin with. The default of a million takes twice the time for small vocabularies, and
            # the result needs no fewer tokens (4,000 pieces on 5 MB: 449 k tokens of WikiText, with 30,000: 447 k).
            seed_sentencepiece_size=10 * vocab_size,
            max_sentence_length=8 * _PASSAGE,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_unigram_advice(str(error), vocab_size)) from None
    return written.getvalue()


def _trainable(passage: str) -> str:
    # SentencePiece takes U+2581 for a space and leaves out text with U+0000.
    return passage.replace("▁", " ").replace("\0", " ")


def _unigram_advice(error: str, vocab_size: int) -> str:
    if match := re.search(r"set it to a value <= (\d+)", error):
        return (
            f"vocab_size={vocab_size} is too large for this text: the largest that works is {match.group(1)}"
        )
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        # The count of required pieces does not include one for a space.
        return f"vocab_size={vocab_size} is too small for this text: give at least {int(match.group(1)) + 1}"
    return f"SentencePiece could not train {vocab_size} pieces: {error}"


def train_wordpiece(
    texts: Iterable[str], vocab_size: int, *, lowercase: bool = True, sample_bytes: int = 100_000_000
) -> dict[str, int]:
    """Train a WordPiece vocabulary for ELECTRA: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4.

    Args:
        texts: documents.
        vocab_size: number of pieces, the special ones among them.
        lowercase: fold case and accents, as BERT's uncased models.
        sample_bytes: train on at most this much text, drawn by hash.

    Returns:
        Piece to id. Characters (the 1,000 most frequent at most) come after the special tokens, then the pieces
        that were merged from them, most frequent first.

    Raises:
        UserError: no text, or a size that does not suit it; says the largest or smallest that works.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    words = pre_tokenizers.BertPreTokenizer()
    passages = [normalizer.normalize_str(passage) for passage in sample(texts, sample_bytes)]
    counts = Counter[str]()
    for passage in passages:
        counts.update(passage)
    characters = sorted(c for c in counts if not c.isspace())
    frequent = sorted(characters, key=lambda c: (-counts[c], c))[: min(1000, vocab_size // 4)]
    # Characters that may stand inside a word, and not be a word by themselves.
    inner = ["##" + c for c in sorted(frequent) if len(words.pre_tokenize_str("a" + c)) == 1]
    first = [*SPECIAL_TOKENS.values(), *sorted(frequent), *inner]
    if len(first) > vocab_size:
        raise UserError(f"vocab_size={vocab_size} is too small for this text: give at least {len(first)}")

    backend = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk"]))
    backend.pre_tokenizer = words
    # Left to itself the library numbers the characters in the order of a hash table, which differs from run to
    # run, and so do its choices between equally frequent pairs. So it is told all of them, as special tokens.
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
    rare = str.maketrans(dict.fromkeys(set(characters) - set(frequent), ""))
    backend.train_from_iterator((passage.translate(rare) for passage in passages), trainer)
    vocab: dict[str, int] = backend.get_vocab()
    if len(vocab) < vocab_size:
        raise UserError(
            f"vocab_size={vocab_size} is too large for this text: the largest that works is {len(vocab)}"
        )
    return vocab


def sample(texts: Iterable[str], limit: int) -> list[str]:
    """Passages of the texts, `limit` bytes at most, in an order that depends on nothing but their content.

    The passages with the smallest hashes are kept, so that the sample is the same for any order of the texts;
    memory is bounded by `limit`.

    Raises:
        UserError: there is no text, or it is not Unicode.
    """
    kept: list[tuple[int, str]] = []  # a heap whose first item has the largest hash
    total = 0
    for passage in _passages(texts):
        data = passage.encode()
        rank = -int.from_bytes(blake2b(data, digest_size=8).digest())
        if total + len(data) > limit and kept and rank <= kept[0][0]:
            continue
        heapq.heappush(kept, (rank, passage))
        total += len(data)
        while total > limit and len(kept) > 1:
            total -= len(heapq.heappop(kept)[1].encode())
    if not kept:
        raise UserError("there is no text to train a vocabulary on")
    return [passage for _, passage in sorted(kept, reverse=True)]


def _passages(texts: Iterable[str]) -> Iterator[str]:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {index} must be a str, not {type(text).__name__}")
        if not text.isprintable() and re.search("[\ud800-\udfff]", text):
            raise UserError(f"text {index} holds a lone surrogate, which is no Unicode text: repair it first")
        start = 0
        while len(text) - start > _PASSAGE:
            end = start + _PASSAGE
            # Before a line break, or before a space, which belongs to the word after it.
            cut = max(text.rfind("\n", start + 1, end), 0) or max(text.rfind(" ", start + 1, end), 0) or end
            yield text[start:cut]
            start = cut
        if text[start:].strip():
            yield text[start:]
