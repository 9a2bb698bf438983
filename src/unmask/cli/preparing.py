"""What `unmask pretrain` needs before it can train: a tokenizer and packed shards."""

from __future__ import annotations

from pathlib import Path

from unmask.corpus.reading import read_documents
from unmask.data.shards import Shards, is_shards, write_shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.hub import atomic_directory
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.recipe import PretrainRecipe

TOKENIZER = "tokenizer"
DATA = "data"

Vocabulary = T5Tokenizer | ElectraTokenizer


def prepare_data(
    recipe: PretrainRecipe, data: list[str], out: Path, tokenizer: str | None
) -> tuple[Shards, Vocabulary]:
    """The shards and the tokenizer of a run: given, found in the run's directory, or made there.

    Raises:
        UserError: unreadable or empty data, or shards that the tokenizer did not make.
    """
    kind = T5Tokenizer if recipe.family == "t5" else ElectraTokenizer
    if len(data) == 1 and is_shards(data[0]):
        beside = Path(data[0]) / TOKENIZER
        if tokenizer is None and not beside.is_dir():
            raise UserError(
                f"{data[0]} has no {TOKENIZER} directory: name the one that made it with --tokenizer"
            )
        vocabulary: Vocabulary = kind.from_pretrained(tokenizer or beside)
        return Shards.open(data[0], vocabulary), vocabulary
    vocabulary = _vocabulary(recipe, data, out, tokenizer)
    if not is_shards(out / DATA):
        write_shards(
            (document.text for document in read_documents(data)),
            vocabulary,
            out / DATA,
            by_line=recipe.family == "electra",
            validation_share=recipe.validation_share,
        )
    return Shards.open(out / DATA, vocabulary), vocabulary


def _vocabulary(recipe: PretrainRecipe, data: list[str], out: Path, tokenizer: str | None) -> Vocabulary:
    kind = T5Tokenizer if recipe.family == "t5" else ElectraTokenizer
    if tokenizer is not None:
        return kind.from_pretrained(tokenizer)
    trained = out / TOKENIZER
    if not trained.is_dir():
        texts = (document.text for document in read_documents(data))
        if recipe.family == "t5":
            made: Vocabulary = T5Tokenizer.train(texts, recipe.vocab_size)
        else:
            made = ElectraTokenizer.train(
                texts, recipe.vocab_size, lowercase=recipe.chosen("lowercase", True)
            )
        with atomic_directory(trained) as temporary:
            made.save_pretrained(temporary)
    return kind.from_pretrained(trained)
