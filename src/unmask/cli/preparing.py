"""What `unmask pretrain` needs before it can train: a tokenizer and packed shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unmask.cli.packing import pack_files
from unmask.corpus.reading import input_files, read_texts
from unmask.data.shards import Shards, is_shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.hub import atomic_directory
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, load_tokenizer
from unmask.t5.tokenizer import SENTINELS, T5Tokenizer
from unmask.training.checkpoints import remove_leftovers
from unmask.training.recipe import PretrainRecipe
from unmask.training.runs import check_place, claim_run

#: What the tokenizer and the shards of a run were made from.
PREPARED = "prepared.json"
TOKENIZER = "tokenizer"
DATA = "data"

Vocabulary = AnyT5Tokenizer | ElectraTokenizer


def named_corpora(data: list[str]) -> dict[str, str] | None:
    """What NAME=DIR NAME=DIR … says: name → directory, in order of the names; None: it is data without names.

    Raises:
        UserError: only some have names, or two have the same.
    """
    pairs = [item.partition("=") for item in data if "=" in item and not Path(item).exists()]
    pairs = [(name, sign, path) for name, sign, path in pairs if name and not set("/\\") & set(name)]
    if not pairs:
        return None
    if len(pairs) < len(data):
        bare = next(item for item in data if item.partition("=") not in pairs)
        raise UserError(f"--data {bare} has no name beside {pairs[0][0]}=…: give every corpus as NAME=DIR")
    names = [name for name, _, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--data names {name!r} twice: give every corpus a name of its own")
    return {name: path for name, _, path in sorted(pairs)}


def prepare_mixture(
    recipe: PretrainRecipe, corpora: Mapping[str, str], tokenizer: str | None
) -> tuple[dict[str, Shards], Vocabulary]:
    """The shards of named directories, and the tokenizer that made all of them.

    Raises:
        UserError: one that is not packed, damaged or made with another tokenizer, or rates of other names.
    """
    for name, path in corpora.items():
        if not is_shards(path):
            raise UserError(
                f"{name}={path} is no directory of packed shards, as every corpus of a mixture must be: "
                "make it with `unmask pack`"
            )
    beside = [Path(path) / TOKENIZER for path in corpora.values() if (Path(path) / TOKENIZER).is_dir()]
    if tokenizer is None and not beside:
        raise UserError(
            f"none of the corpora has a {TOKENIZER} directory: name the one that made them with --tokenizer"
        )
    vocabulary = _loaded(recipe, tokenizer or beside[0])
    # Before all files are read, which takes long.
    opened = {name: Shards.open(path, vocabulary, verify=False) for name, path in corpora.items()}
    recipe.mixture_rates({name: shards.train.tokens for name, shards in opened.items()})
    return {name: Shards.open(path, vocabulary) for name, path in corpora.items()}, vocabulary


def prepare_data(
    recipe: PretrainRecipe, data: list[str] | None, out: Path, tokenizer: str | None
) -> tuple[Shards, Vocabulary]:
    """The shards and the tokenizer of a run: given, found in the run's directory, or made there.

    Args:
        data: None: what was made in the run's directory before, wherever that has been since.

    Raises:
        UserError: nothing was made there; unreadable or empty data, shards that the tokenizer did not make, or a
            directory in which they were made from other data or with other settings.
    """
    recipe.check_single()
    if data is None:
        if not (is_shards(out / DATA) and (out / TOKENIZER).is_dir()):
            raise UserError(f"{out} has no {DATA} and {TOKENIZER} of its own: name what it reads with --data")
        vocabulary = _loaded(recipe, tokenizer or out / TOKENIZER)
        return Shards.open(out / DATA, vocabulary), vocabulary
    if len(data) == 1 and is_shards(data[0]):
        beside = Path(data[0]) / TOKENIZER
        if tokenizer is None and not beside.is_dir():
            raise UserError(
                f"{data[0]} has no {TOKENIZER} directory: name the one that made it with --tokenizer"
            )
        vocabulary = _loaded(recipe, tokenizer or beside)
        return Shards.open(data[0], vocabulary), vocabulary
    check_place(out)
    remove_leftovers(out)
    input_files(data)  # refuses paths that do not exist, before anything is written
    if not (out / TOKENIZER).is_dir() and not is_shards(out / DATA):
        # An attempt that made nothing, a vocabulary too large for its text perhaps, binds nobody.
        (out / PREPARED).unlink(missing_ok=True)
    claim_run(out, _ingredients(recipe, data, tokenizer), PREPARED)
    vocabulary = _vocabulary(recipe, data, out, tokenizer)
    if not is_shards(out / DATA):
        pack_files(
            data,
            vocabulary,
            out / DATA,
            by_line=recipe.family == "electra",
            validation_share=recipe.validation_share,
        )
    return Shards.open(out / DATA, vocabulary), vocabulary


def _ingredients(recipe: PretrainRecipe, data: list[str], tokenizer: str | None) -> dict[str, Any]:
    """What decides the tokenizer and the shards."""
    names = ("family", "vocab_size", "lowercase", "validation_share")
    return {
        "recipe": {name: getattr(recipe, name) for name in names} | {"sentinels": _sentinels(recipe)},
        "data": [str(Path(path).expanduser().absolute()) for path in data],
        "tokenizer": tokenizer or recipe.start_from,
    }


def _sentinels(recipe: PretrainRecipe) -> int | None:
    """Of the tokenizer that is trained: as many as T5's, or as the objective needs."""
    return max(SENTINELS, recipe.sentinels_needed()) if recipe.family == "t5" else None


def _vocabulary(recipe: PretrainRecipe, data: list[str], out: Path, tokenizer: str | None) -> Vocabulary:
    """The one that is named, or is there, or is made; a run has a copy of its own."""
    kept = out / TOKENIZER
    if not kept.is_dir():
        made = _made(recipe, data) if tokenizer is None else _loaded(recipe, tokenizer)
        with atomic_directory(kept) as temporary:
            made.save_pretrained(temporary)
    return _loaded(recipe, tokenizer or kept)


def _made(recipe: PretrainRecipe, data: list[str]) -> Vocabulary:
    """The checkpoint's own, where a run begins with one, else one that is trained."""
    if recipe.start_from is not None:
        return _loaded(recipe, recipe.start_from)
    texts = read_texts(data)
    if recipe.family == "t5":
        return T5Tokenizer.train(texts, recipe.vocab_size, sentinels=_sentinels(recipe) or SENTINELS)
    return ElectraTokenizer.train(texts, recipe.vocab_size, lowercase=recipe.chosen("lowercase", True))


def _loaded(recipe: PretrainRecipe, name_or_path: str | Path) -> Vocabulary:
    load = load_tokenizer if recipe.family == "t5" else ElectraTokenizer.from_pretrained
    return load(name_or_path)
