"""Data of a recipe's sizes for a trial without data: made-up words under a vocabulary of the right size."""

from __future__ import annotations

import random
from pathlib import Path

from unmask.data.shard_writing import write_shards
from unmask.data.shards import Shards
from unmask.electra import vocabulary as electra_vocabulary
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5 import vocabulary as t5_vocabulary
from unmask.t5.byte_tokenizer import AnyT5Tokenizer
from unmask.t5.tokenizer import SENTINELS, T5Tokenizer
from unmask.training.recipe import PretrainRecipe

#: Words of a document, and of a line of it, and how many documents.
WORDS, LINE, DOCUMENTS = 1500, 12, 60
_SYLLABLES = ("ba", "del", "fim", "gon", "ka", "lor", "mu", "ne", "pit", "sa", "tor", "vu")


def stand_in(recipe: PretrainRecipe, directory: Path) -> tuple[Shards, AnyT5Tokenizer | ElectraTokenizer]:
    """Shards of made-up text, and the tokenizer that made them, with as many ids as the recipe's will have.

    Speed and memory depend on how many tokens there are and how many could be, not on which they are.
    """
    draw = random.Random(0)
    words = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(2000)]
    texts = [
        "\n".join(" ".join(draw.choices(words, k=LINE)) for _ in range(WORDS // LINE))
        for _ in range(DOCUMENTS)
    ]
    tokenizer: AnyT5Tokenizer | ElectraTokenizer
    if recipe.family == "t5":
        sentinels = max(SENTINELS, recipe.sentinels_needed())
        small = T5Tokenizer.train(texts, min(500, recipe.vocab_size), sentinels=sentinels)
        missing = recipe.vocab_size + sentinels - small.vocab_size
        tokenizer, _ = t5_vocabulary.extended(small, _numbered(missing))
    else:
        trained = ElectraTokenizer.train(texts, min(500, recipe.vocab_size))
        tokenizer, _ = electra_vocabulary.extended(trained, _numbered(recipe.vocab_size - trained.vocab_size))
    write_shards(texts, tokenizer, directory, by_line=recipe.family == "electra", validation_share=0.1)
    return Shards.open(directory, tokenizer, verify=False), tokenizer


def _numbered(count: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"unused{number}", ()) for number in range(max(0, count))]
