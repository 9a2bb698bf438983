"""BERT's WordPiece vocabularies, from `vocab.txt` or `tokenizer.json`, by the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from unmask.errors import UserError
from unmask.hub import read_json

VOCAB_TXT = "vocab.txt"
TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

#: BERT's special tokens, in the order of their ids in a vocabulary that is trained here.
SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


def normalizer(*, lowercase: bool, strip_accents: bool | None, split_cjk: bool) -> normalizers.Normalizer:
    """BERT's cleaning of text before it is cut; arguments as for `build`."""
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=split_cjk, strip_accents=strip_accents, lowercase=lowercase
    )


def build(
    vocab: Mapping[str, int],
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    split_cjk: bool = True,
    names: Mapping[str, str] = SPECIAL_TOKENS,
) -> Tokenizer:
    """BERT's pipeline: clean, split at spaces, punctuation and Chinese characters, longest match first.

    Args:
        vocab: piece to id; pieces that continue a word begin with `##`.
        lowercase: fold case (and accents, unless `strip_accents` says otherwise).
        strip_accents: None follows `lowercase`, as in BERT.
        split_cjk: each Chinese character is a word (the Kanji of Japanese too, not kana, not Hangul).
        names: what the special tokens are called (`pad`, `unk`, `cls`, `sep`, `mask`).

    Raises:
        UserError: a special token is not in the vocabulary.
    """
    absent = [name for name in names.values() if name not in vocab]
    if absent:
        raise UserError(f"the vocabulary lacks {', '.join(absent)}: a WordPiece vocabulary needs these lines")
    backend = Tokenizer(models.WordPiece(dict(vocab), unk_token=names["unk"], max_input_chars_per_word=100))
    backend.normalizer = normalizer(lowercase=lowercase, strip_accents=strip_accents, split_cjk=split_cjk)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names.values()])
    cls, sep = names["cls"], names["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    return backend


def load(directory: Path) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer of a directory and what its special tokens are called.

    `tokenizer.json` is taken as it is, but for the case and accent folding that `tokenizer_config.json` may
    state otherwise; without it the pipeline is BERT's over `vocab.txt`.

    Raises:
        UserError: there are no tokenizer files, or they cannot be read.
    """
    config_file = directory / TOKENIZER_CONFIG
    config = read_json(config_file) if config_file.is_file() else {}
    map_file = directory / "special_tokens_map.json"
    config = (read_json(map_file) if map_file.is_file() else {}) | config
    names = {role: _content(config.get(f"{role}_token")) or name for role, name in SPECIAL_TOKENS.items()}
    if (directory / TOKENIZER_JSON).is_file():
        backend = _from_json(directory / TOKENIZER_JSON, config)
    elif (directory / VOCAB_TXT).is_file():
        backend = _from_vocab(directory, config, names)
    else:
        raise UserError(f"{directory} has no WordPiece tokenizer: neither {TOKENIZER_JSON} nor {VOCAB_TXT}")
    return backend, names


def _from_json(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    value = read_json(path)
    kind = (value.get("model") or {}).get("type", "WordPiece")
    if kind != "WordPiece":
        raise UserError(f"{path} holds a {kind} vocabulary: ELECTRA needs WordPiece")
    normalizer = value.get("normalizer")
    if normalizer and normalizer.get("type") == "BertNormalizer":
        # Where a model's files disagree, Transformers goes by the config.
        for key, option in (
            ("lowercase", "do_lower_case"),
            ("strip_accents", "strip_accents"),
            ("handle_chinese_chars", "tokenize_chinese_chars"),
        ):
            if option in config:
                normalizer[key] = config[option]
    # Settings of whoever saved the file; here they are arguments.
    value |= {"truncation": None, "padding": None}
    try:
        return Tokenizer.from_str(json.dumps(value))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path} cannot be read: {error}") from None


def _from_vocab(directory: Path, config: Mapping[str, Any], names: Mapping[str, str]) -> Tokenizer:
    path = directory / VOCAB_TXT
    try:
        with path.open(encoding="utf-8") as lines:
            vocab = {line.rstrip("\n"): index for index, line in enumerate(lines)}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    backend = build(
        vocab,
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        split_cjk=config.get("tokenize_chinese_chars", True),
        names=names,
    )
    for token in _added_later(directory, config, vocab):
        backend.add_tokens([token])
    return backend


def _added_later(directory: Path, config: Mapping[str, Any], vocab: Mapping[str, int]) -> list[AddedToken]:
    """Tokens that a user added after the vocabulary, by id: in the config, or in a file of their own."""
    tokens: dict[int, AddedToken] = {}
    tokens_file = directory / "added_tokens.json"
    if tokens_file.is_file():
        tokens |= {int(i): AddedToken(name, normalized=True) for name, i in read_json(tokens_file).items()}
    options = ("single_word", "lstrip", "rstrip", "normalized", "special")
    for token_id, token in (config.get("added_tokens_decoder") or {}).items():
        settings = {option: bool(token.get(option)) for option in options}
        tokens[int(token_id)] = AddedToken(token["content"], **settings)
    return [token for _, token in sorted(tokens.items()) if token.content not in vocab]


def _content(token: Any) -> str | None:
    """A special token's text: files write it plain or as an object."""
    if isinstance(token, Mapping):
        return str(token["content"])
    return token if isinstance(token, str) else None
