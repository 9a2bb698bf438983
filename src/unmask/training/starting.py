"""Pre-training that begins with a checkpoint's weights: its shape, its vocabulary or another one, longer texts."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from unmask import hub
from unmask.electra import vocabulary as electra_vocabulary
from unmask.electra.config import ElectraConfig
from unmask.electra.model import ElectraBackbone
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.nn.tables import repeated, rows_of
from unmask.t5 import vocabulary as t5_vocabulary
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, ByT5Tokenizer, load_tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.text.surgery import Sources
from unmask.text.tokenizer import Tokenizer
from unmask.training.recipe import RUN, PretrainRecipe

logger = logging.getLogger("unmask")

_Electra = TypeVar("_Electra", bound=ElectraBackbone)

#: Where a run keeps what it began with.
START = "start"

_POSITIONS = "position_embeddings.weight"


def start_directory(recipe: PretrainRecipe) -> Path:
    """Of the checkpoint that a recipe begins with."""
    assert recipe.start_from is not None
    return hub.find_model(recipe.start_from)


def half(directory: Path, name: str) -> Path:
    """A half of a pair, or the directory itself where it is no pair."""
    return directory / name if (directory / name).is_dir() else directory


def shaped(recipe: PretrainRecipe) -> PretrainRecipe:
    """The recipe with the shape of the checkpoint that it begins with, in place of its own, which it says.

    Raises:
        UserError: no checkpoint, or one of another family.
    """
    if recipe.start_from is None:
        return recipe
    directory = start_directory(recipe)
    place = (
        half(directory, GENERATOR if recipe.chosen_objective == "masked-lm" else DISCRIMINATOR) / hub.CONFIG
    )
    values = hub.read_json(place)
    family = "electra" if values.get("model_type") in ("electra", "bert") else "t5"
    if family != recipe.family:
        raise UserError(f"{directory} is of family {family}, the recipe of {recipe.family}")
    read = _t5_shape if family == "t5" else _electra_shape
    shape = read(values, str(place))
    if (directory / GENERATOR).is_dir() and recipe.generator_share is not None:
        # Its generator is there.
        shape["generator_share"] = None
    changed = {name: value for name, value in shape.items() if getattr(recipe, name) != value}
    if changed:
        own = ", ".join(
            f"{name} {value} (recipe: {getattr(recipe, name)})" for name, value in changed.items()
        )
        logger.warning("the shape is that of %s: %s", directory, own)
    return dataclasses.replace(recipe, **shape)


def _t5_shape(values: dict[str, Any], where: str) -> dict[str, Any]:
    config = T5Config.from_hub(values, where)
    return {
        "layers": config.num_layers,
        "decoder_layers": config.decoder_layers,
        "width": config.d_model,
        "heads": config.num_heads,
        "head_width": config.d_kv,
        "feed_forward_width": config.d_ff,
        # The checkpoint says more kinds than a recipe can.
        "feed_forward": None,
        "tied": config.tie_word_embeddings,
    }


def _electra_shape(values: dict[str, Any], where: str) -> dict[str, Any]:
    config = ElectraConfig.from_hub(values, where)
    return {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "feed_forward_width": config.intermediate_size,
        "embedding_width": config.embedding_size,
    }


def settled(recipe: PretrainRecipe, run: Path) -> tuple[PretrainRecipe, dict[str, str], PretrainRecipe]:
    """What a run that begins with a checkpoint is, and what it is made from.

    A run keeps what it began with, so that it goes on where the checkpoint is gone.

    Returns:
        The recipe in the checkpoint's shape; the checksum of its weights for run.json, nothing without a checkpoint;
        and the recipe to make the first weights by, which names the kept ones where the checkpoint is gone.

    Raises:
        UserError: the checkpoint is neither there nor kept, or is of another family.
    """
    if recipe.start_from is None:
        return recipe, {}, recipe
    kept = run / START
    try:
        checksum = weights_checksum(start_directory(recipe))
    except UserError:
        if not kept.is_dir():
            raise
        made_by = shaped(dataclasses.replace(recipe, start_from=str(kept)))
        claimed = hub.read_json(run / RUN)
        # What is kept has a generator, whether the checkpoint had one or not.
        share = claimed.get("recipe", {}).get("generator_share")
        named = dataclasses.replace(made_by, start_from=recipe.start_from, generator_share=share)
        return named, {"start": str(claimed.get("start"))}, made_by
    made_by = shaped(recipe)
    return made_by, {"start": checksum}, made_by


def weights_checksum(directory: Path) -> str:
    """SHA-256 over those of all weight files of a model directory, or of a pair's."""
    digest = hashlib.sha256()
    kinds = (".safetensors", ".bin")
    for path in sorted(each for each in directory.rglob("*") if each.suffix in kinds):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def start_t5(recipe: PretrainRecipe, tokenizer: AnyT5Tokenizer, multiple: int) -> T5ForConditionalGeneration:
    """A T5 with a checkpoint's weights and the run's vocabulary.

    Args:
        multiple: rows of a new embedding are one of it.

    Raises:
        UserError: a checkpoint that cannot be read.
    """
    directory = start_directory(recipe)
    model = T5ForConditionalGeneration.from_pretrained(
        directory, dtype="float32", dropout_rate=recipe.dropout
    )
    old = load_tokenizer(directory)
    if _same(old, tokenizer) and model.config.vocab_size >= tokenizer.vocab_size:
        return _trainable(model)
    if isinstance(old, ByT5Tokenizer) or isinstance(tokenizer, ByT5Tokenizer):
        raise UserError(
            f"{directory} and the run's tokenizer are of unlike kinds, bytes and pieces: give --tokenizer {directory}"
        )
    sources = sources_of(old, tokenizer)
    sources += [()] * (-len(sources) % multiple)
    state = _with_vocabulary(model.hub_state(), t5_vocabulary.TABLES, sources, old, tokenizer, directory)
    config = dataclasses.replace(model.config, vocab_size=len(sources))
    return _trainable(T5ForConditionalGeneration.from_weights(config, state, str(directory)))


def start_electra(
    kind: type[_Electra], directory: Path, recipe: PretrainRecipe, tokenizer: ElectraTokenizer
) -> _Electra:
    """A half, or a masked LM, with a checkpoint's weights, the run's vocabulary and positions for its texts.

    Raises:
        UserError: a checkpoint that cannot be read.
    """
    model = kind.from_pretrained(
        directory,
        dtype="float32",
        hidden_dropout_prob=recipe.dropout,
        attention_probs_dropout_prob=recipe.dropout,
    )
    old = ElectraTokenizer.from_pretrained(directory)
    state, config = model.hub_state(), model.config
    if not _same(old, tokenizer):
        sources = sources_of(old, tokenizer)
        state = _with_vocabulary(state, electra_vocabulary.TABLES, sources, old, tokenizer, directory)
        config = dataclasses.replace(config, vocab_size=len(sources))
    if config.max_position_embeddings < recipe.length:
        config = dataclasses.replace(config, max_position_embeddings=recipe.length)
        state = {
            name: repeated(tensor, recipe.length) if name.endswith(_POSITIONS) else tensor
            for name, tensor in state.items()
        }
    return _trainable(kind.from_weights(config, state, str(directory)))


def _same(old: Tokenizer, new: Tokenizer) -> bool:
    ids = range(new.vocab_size)
    return old.vocab_size == new.vocab_size and old.convert_ids_to_tokens(ids) == new.convert_ids_to_tokens(
        ids
    )


def sources_of(old: Tokenizer, new: Tokenizer) -> Sources:
    """For each id of a new vocabulary the old ids that it is made from: the same piece, or what reads its text."""
    space = "▁" if isinstance(new, T5Tokenizer) else ""
    roles = {"pad_token_id", "unk_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id"}
    special = {
        getattr(new, role): getattr(old, role)
        for role in sorted(roles)
        if hasattr(new, role) and hasattr(old, role)
    }
    known = {piece: number for number, piece in enumerate(old.convert_ids_to_tokens(range(old.vocab_size)))}
    pieces = [str(piece) for piece in new.convert_ids_to_tokens(range(new.vocab_size))]
    absent = [piece for number, piece in enumerate(pieces) if number not in special and piece not in known]
    texts = [
        piece.removeprefix("##").replace(space, " ") if space else piece.removeprefix("##")
        for piece in absent
    ]
    unknown = old.unk_token_id
    read = dict(zip(absent, old.encode_batch(texts, add_special_tokens=False), strict=True))
    return [
        (special[number],)
        if number in special and special[number] is not None
        else (known[piece],)
        if piece in known
        else tuple(token for token in read.get(piece, []) if token != unknown)
        for number, piece in enumerate(pieces)
    ]


def _with_vocabulary(
    state: dict[str, Tensor],
    tables: tuple[str, ...],
    sources: Sources,
    old: Tokenizer,
    new: Tokenizer,
    directory: Path,
) -> dict[str, Tensor]:
    kept = sum(len(ids) == 1 for ids in sources)
    logger.warning(
        "the vocabulary of %s (%d tokens) is changed to the run's (%d): %d tokens keep their vectors, the others begin "
        "as the mean of those that stood for them",
        directory,
        old.vocab_size,
        new.vocab_size,
        kept,
    )
    return {
        name: rows_of(tensor, sources) if name.endswith(tables) else tensor for name, tensor in state.items()
    }


_Model = TypeVar("_Model", bound=Any)


def _trainable(model: _Model) -> _Model:
    model.requires_grad_(True)
    return model.train()
