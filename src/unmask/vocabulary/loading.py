"""The tokenizer of a directory, whichever family it is of."""

from __future__ import annotations

import os
from pathlib import Path

from unmask.electra.tokenizer import ElectraTokenizer
from unmask.hub import find_model, read_json
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.tokenizer import SPIECE_MODEL, TOKENIZER_CONFIG, TOKENIZER_JSON
from unmask.vocabulary.training import AnyTokenizer


def load_any_tokenizer(name_or_path: str | os.PathLike[str]) -> AnyTokenizer:
    """T5's (pieces or bytes) or ELECTRA's tokenizer, by what the files say.

    Raises:
        UserError: there is no such directory or name, it has no tokenizer files, or they cannot be read.
    """
    directory = find_model(name_or_path)
    return load_tokenizer(directory) if _is_t5(directory) else ElectraTokenizer.from_pretrained(directory)


def _is_t5(directory: Path) -> bool:
    if (directory / SPIECE_MODEL).is_file():
        return True
    if (directory / TOKENIZER_JSON).is_file():
        kind = (read_json(directory / TOKENIZER_JSON).get("model") or {}).get("type")
        return kind == "Unigram"
    config = directory / TOKENIZER_CONFIG
    return config.is_file() and read_json(config).get("tokenizer_class") == "ByT5Tokenizer"
