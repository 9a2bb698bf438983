"""Training vocabularies: SentencePiece Unigram for T5, WordPiece for ELECTRA.

The same texts give the same vocabulary, byte for byte, whatever their order and however many cores there are.
"""

from __future__ import annotations

import heapq
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from unmask.errors import UserError
from unmask.text import wordpiece
from unmask.text.wordpiece import SPECIAL_TOKENS

# Characters of text in one unit of sampling and training: a long document is cut at lines or words.
_PASSAGE = 4000

# Always in a vocabulary; of the other characters, as many as cover this share of the text.
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_COVERAGE = 0.9995

# Not the machine's number of cores: SentencePiece adds up its counts thread by thread, so that another number
# would give another vocabulary.
_THREADS = 16


def train_unigram(texts: Iterable[str], vocab_size: int, *, sample_bytes: int = 50_000_000) -> bytes:
    """Train a SentencePiece Unigram model for T5: `<pad>` 0, `</s>` 1, `<unk>` 2, no `<s>`.

    Nothing of a text is lost: there is no Unicode normalisation, spaces stay as they are, line breaks and
    tabs are pieces of their own, printable ASCII is always in, and any other character falls back to its
    bytes. Unlike in the published vocabulary, no space is put before the text's first word.

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
            required_chars=_ASCII,
            character_coverage=_COVERAGE,
            # Candidates to begin with. More take longer and end with more tokens: 4,000 pieces from 5 MB of
            # novels write WikiText-2 in 418 k tokens, and in 435 k with ten candidates for each piece; 16,000
            # pieces in 351 k, and in 365 k with the library's million candidates.
            seed_sentencepiece_size=5 * vocab_size,
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
    texts: Iterable[str],
    vocab_size: int,
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    split_cjk: bool = True,
    words_of: Callable[[str], Iterable[str]] | None = None,
    sample_bytes: int = 100_000_000,
) -> dict[str, int]:
    """Train a WordPiece vocabulary for ELECTRA: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4.

    Args:
        texts: documents.
        vocab_size: number of pieces, the special ones among them.
        lowercase: fold case, as BERT's uncased models.
        strip_accents: fold accents; None follows `lowercase`.
        split_cjk: each Chinese character is a word.
        words_of: the words of a text, which no piece may cross; None: spaces and punctuation alone part words.
        sample_bytes: train on at most this much text, drawn by hash.

    Returns:
        Piece to id. After the special tokens come characters (printable ASCII, and others by frequency until
        99.95 % of the text is covered), then the pieces merged from them, most frequent first.

    Raises:
        UserError: no text, or a size that does not suit it; says the largest or smallest that works.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    normalizer = wordpiece.normalizer(lowercase=lowercase, strip_accents=strip_accents, split_cjk=split_cjk)
    words = pre_tokenizers.BertPreTokenizer()
    passages = sample(texts, sample_bytes)
    if words_of is not None:
        passages = [" ".join(words_of(passage)) for passage in passages]
    passages = [normalizer.normalize_str(passage) for passage in passages]
    counts = Counter[str]()
    for passage in passages:
        counts.update(passage)
    characters = {c for c in counts if not c.isspace()}
    alphabet = _alphabet({c: counts[c] for c in characters}, normalizer.normalize_str(_ASCII))
    # Characters that may stand inside a word, and not be a word by themselves.
    inner = [
        "##" + c for c in alphabet if len(words.pre_tokenize_str(normalizer.normalize_str("a" + c))) == 1
    ]
    first = [*SPECIAL_TOKENS.values(), *alphabet, *inner]
    if len(first) > vocab_size:
        raise UserError(f"vocab_size={vocab_size} is too small for this text: give at least {len(first)}")

    backend = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk"]))
    backend.pre_tokenizer = words
    # Left to itself the library numbers the characters in the order of a hash table, which differs from run
    # to run, and so do its choices between equally frequent pairs. So it is told them all, as special tokens.
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=first, show_progress=False)
    rare = str.maketrans(dict.fromkeys(characters.difference(alphabet), ""))
    backend.train_from_iterator((passage.translate(rare) for passage in passages), trainer)
    vocab: dict[str, int] = backend.get_vocab()
    if len(vocab) < vocab_size:
        raise UserError(
            f"vocab_size={vocab_size} is too large for this text: the largest that works is {len(vocab)}"
        )
    return vocab


def _alphabet(counts: dict[str, int], always: str) -> list[str]:
    """The characters that a vocabulary needs; a word with any other one will be unknown."""
    kept = {c for c in always if not c.isspace()}
    missing = (1 - _COVERAGE) * sum(counts.values())
    # From the rarest up, as long as what is left out stays within the share.
    for character in sorted(counts.keys() - kept, key=lambda c: (counts[c], c)):
        missing -= counts[character]
        if missing < 0:
            kept.add(character)
    return sorted(kept)


def sample(texts: Iterable[str], limit: int, purpose: str = "") -> list[str]:
    """Passages of the texts, `limit` bytes at most, in an order that depends on nothing but their content.

    The passages with the smallest hashes are kept, so that the sample is the same for any order of the texts;
    memory is bounded by `limit`. Different purposes (of at most 16 bytes) draw independently of each other.

    Raises:
        UserError: there is no text, or it is not Unicode.
    """
    kept: list[tuple[int, str]] = []  # a heap whose first item has the largest hash
    total, bound = 0, 1 << 64
    for passage in _passages(texts):
        data = passage.encode()
        rank = int.from_bytes(blake2b(data, digest_size=8, person=purpose.encode()).digest())
        # What is beyond a dropped passage stays out, though there may be room again: else order would matter.
        if rank >= bound:
            continue
        heapq.heappush(kept, (-rank, passage))
        total += len(data)
        while total > limit and len(kept) > 1:
            last, dropped = heapq.heappop(kept)
            bound = -last
            total -= len(dropped.encode())
    if not kept:
        raise UserError("there is no text to draw a sample from")
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
