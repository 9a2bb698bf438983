"""The examples of a pre-training batch in words, for a person to see what the model will see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unmask.data.ragged import Batch
from unmask.data.shards import Shards
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, ByT5Tokenizer
from unmask.text.tokenizer import Tokenizer
from unmask.training.electra import training_batches
from unmask.training.recipe import PretrainRecipe
from unmask.training.t5 import t5_training_batches

#: For each family the streams of a batch that a person wants to see, their lengths, and what to call them.
_STREAMS = {
    "t5": (("inputs", "input_lengths", "input"), ("targets", "target_lengths", "target")),
    "electra": (("masked", "lengths", "input"), ("tokens", "lengths", "original")),
}


def batch_examples(
    recipe: PretrainRecipe, shards: Shards, tokenizer: AnyT5Tokenizer | ElectraTokenizer, number: int
) -> list[dict[str, str]]:
    """The examples of training batch `number`, in its order: what each stream is called, to its text.

    Special tokens are written by their names, ByT5's sentinels, and bytes of a character that was cut, as `\\xff`.
    ELECTRA's input is the generator's: the discriminator sees its samples.

    Raises:
        UserError: shards that are too small, or of the other family.
    """
    if isinstance(tokenizer, ElectraTokenizer):
        batch = training_batches(recipe, shards, tokenizer)[number]
    else:
        batch = t5_training_batches(recipe, shards, tokenizer)[number]
    columns = {
        name: list(_texts(batch, stream, lengths, tokenizer))
        for stream, lengths, name in _STREAMS[recipe.family]
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _texts(batch: Batch, stream: str, lengths: str, tokenizer: Tokenizer) -> Iterator[str]:
    ends = np.cumsum(batch[lengths])
    for row in np.split(batch[stream], ends[:-1]):
        ids = row.tolist()
        yield tokenizer.spelled(ids) if isinstance(tokenizer, ByT5Tokenizer) else tokenizer.decode(ids)
