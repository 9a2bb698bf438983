"""Runs that begin with a checkpoint: its weights, another vocabulary, longer texts, both halves or one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unmask import hub
from unmask.data.shard_writing import write_shards
from unmask.data.shards import Shards
from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.model import ElectraForMaskedLM
from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.training.pretraining import pretrain, pretraining_of
from unmask.training.recipe import PretrainRecipe
from unmask.training.starting import shaped, sources_of

CPU = torch.device("cpu")
TABLE: dict[str, Any] = {
    "family": "electra",
    "vocab_size": 140,
    "layers": 3,
    "width": 64,
    "heads": 4,
    "feed_forward_width": 8,
    "length": 32,
    "batch_size": 8,
    "steps": 2,
    "learning_rate": 0.01,
    "precision": "float32",
}
CONFIG = ElectraConfig(
    vocab_size=140,
    embedding_size=16,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
)


def recipe(start: Path, **changes: Any) -> PretrainRecipe:
    return PretrainRecipe(**TABLE | {"start_from": str(start)} | changes)


@pytest.fixture
def pair(tokenizer: ElectraTokenizer, tmp_path: Path) -> Path:
    """A pair on the disk."""
    torch.manual_seed(1)
    directory = tmp_path / "pair"
    config = replace(CONFIG, vocab_size=tokenizer.vocab_size)
    ElectraPair.fresh(generator_config(config, 0.5), config).save_pretrained(directory)
    for part in ("generator", "discriminator"):
        tokenizer.save_pretrained(directory / part)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def other(texts: list[str]) -> ElectraTokenizer:
    """Of a smaller vocabulary."""
    return ElectraTokenizer.train(texts, 110)


def test_both_halves_begin_as_they_were(pair: Path, shards: Shards, tokenizer: ElectraTokenizer) -> None:
    work = pretraining_of(shaped(recipe(pair)), shards, tokenizer, CPU)
    assert isinstance(work.model, ElectraPair) and work.model.training
    before = ElectraPair.from_pretrained(pair)
    for old, new in zip(before.state_dict().values(), work.model.state_dict().values(), strict=True):
        assert torch.equal(old, new)
    assert work.flops(work.batches[0]) > 0
    assert work.model.generator.encoder.embeddings is work.model.discriminator.encoder.embeddings


def test_the_run_is_of_the_checkpoint_s_shape_and_bytes(
    pair: Path, shards: Shards, tokenizer: ElectraTokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = pretrain(recipe(pair), shards, tokenizer, tmp_path / "run", device=CPU)
    assert "layers 2 (recipe: 3)" in caplog.text
    run = hub.read_json(tmp_path / "run" / "run.json")
    assert run["recipe"]["layers"] == 2 and len(run["start"]) == 64
    ElectraPair.from_pretrained(out)
    weights = pair / "discriminator" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match="another start"):
        pretrain(recipe(pair), shards, tokenizer, tmp_path / "run", device=CPU)


def test_it_goes_on_where_the_checkpoint_is_gone(
    pair: Path, shards: Shards, tokenizer: ElectraTokenizer, tmp_path: Path
) -> None:
    def run(directory: Path) -> dict[str, torch.Tensor]:
        out = pretrain(
            recipe(pair / "discriminator", generator_share=0.5, checkpoint_every=1),
            shards,
            tokenizer,
            directory,
            device=CPU,
        )
        return ElectraPair.from_pretrained(out).state_dict()

    whole = run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000002")
    shutil.rmtree(pair)
    again = run(tmp_path / "run")
    assert all(torch.equal(whole[name], tensor) for name, tensor in again.items())
    with pytest.raises(UserError, match="no model"):
        run(tmp_path / "other")


@pytest.mark.parametrize("sharing", ["shared", "disentangled", "separate"])
def test_a_discriminator_alone_gets_a_generator(
    sharing: str, pair: Path, shards: Shards, tokenizer: ElectraTokenizer
) -> None:
    chosen = shaped(recipe(pair / "discriminator", generator_share=0.5, embedding_sharing=sharing))
    work = pretraining_of(chosen, shards, tokenizer, CPU)
    assert isinstance(work.model, ElectraPair)
    assert work.model.generator.config.hidden_size == 8
    before = ElectraPair.from_pretrained(pair).discriminator.state_dict()
    inputs = torch.arange(5, 15)[None]
    old = ElectraPair.from_pretrained(pair).discriminator(inputs).logits
    assert torch.equal(work.model.discriminator.eval()(inputs).logits, old)
    table = work.model.generator.encoder.embeddings.token.weight
    same = torch.equal(table, before["encoder.embeddings.token.weight"])
    assert same == (sharing != "separate")


def test_a_masked_lm_goes_on_as_one(pair: Path, shards: Shards, tokenizer: ElectraTokenizer) -> None:
    chosen = shaped(recipe(pair, objective="masked-lm"))
    assert chosen.width == 8
    work = pretraining_of(chosen, shards, tokenizer, CPU)
    assert isinstance(work.model, ElectraForMaskedLM)
    before = ElectraForMaskedLM.from_pretrained(pair / "generator").state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in work.model.state_dict().items())


def test_longer_texts_and_another_vocabulary(
    pair: Path, texts: list[str], other: ElectraTokenizer, tokenizer: ElectraTokenizer, tmp_path: Path
) -> None:
    write_shards(texts, other, tmp_path / "data", by_line=True, validation_share=0.1)
    shards = Shards.open(tmp_path / "data", other)
    work = pretraining_of(shaped(recipe(pair, length=80)), shards, other, CPU)
    assert isinstance(work.model, ElectraPair)
    tables = work.model.discriminator.encoder.embeddings
    before = ElectraPair.from_pretrained(pair).discriminator.encoder.embeddings
    assert tables.position.weight.shape[0] == 80
    assert torch.equal(tables.position.weight[64:], before.position.weight[:16])
    assert tables.token.weight.shape[0] == other.vocab_size
    piece = next(p for p in other.backend.get_vocab() if tokenizer.convert_tokens_to_ids(p) > 5)
    assert torch.equal(
        tables.token.weight[other.convert_tokens_to_ids(piece)],
        before.token.weight[tokenizer.convert_tokens_to_ids(piece)],
    )
    loss = work.loss(0)
    assert torch.isfinite(loss.total)


@pytest.fixture(scope="module")
def t5(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, T5Tokenizer]:
    directory = tmp_path_factory.mktemp("t5")
    tokenizer = T5Tokenizer.train(texts, 370)
    torch.manual_seed(2)
    config = T5Config(
        vocab_size=512, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=1, num_heads=2
    )
    T5ForConditionalGeneration(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory, tokenizer


Pack = Callable[[T5Tokenizer], Shards]


@pytest.fixture
def pack(texts: list[str], tmp_path: Path) -> Pack:
    def made(tokenizer: T5Tokenizer) -> Shards:
        write_shards(texts, tokenizer, tmp_path / "data", by_line=False, validation_share=0.1)
        return Shards.open(tmp_path / "data", tokenizer)

    return made


def test_a_t5_with_its_own_vocabulary(t5: tuple[Path, T5Tokenizer], pack: Pack) -> None:
    directory, tokenizer = t5
    chosen = shaped(recipe(directory, family="t5", length=100))
    assert (chosen.layers, chosen.decoder_layers, chosen.head_width, chosen.tied) == (2, 1, 4, True)
    work = pretraining_of(chosen, pack(tokenizer), tokenizer, CPU)
    before = T5ForConditionalGeneration.from_pretrained(directory).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in work.model.state_dict().items())
    assert next(work.model.parameters()).requires_grad and work.model.training


def test_a_t5_with_another_vocabulary(t5: tuple[Path, T5Tokenizer], texts: list[str], pack: Pack) -> None:
    directory, old = t5
    new = T5Tokenizer.train(texts, 358)
    work = pretraining_of(shaped(recipe(directory, family="t5")), pack(new), new, CPU)
    assert isinstance(work.model, T5ForConditionalGeneration)
    table = T5ForConditionalGeneration.from_pretrained(directory).embedding.weight
    made = work.model.embedding.weight
    assert made.shape[0] == -(-new.vocab_size // 64) * 64
    for number, ids in enumerate(sources_of(old, new)):
        if ids:
            assert torch.allclose(made[number], table[list(ids)].mean(0), atol=1e-6)
    for number in (0, 7):
        assert torch.equal(made[new.sentinel_ids[number]], table[old.sentinel_ids[number]])
    assert torch.isfinite(work.loss(0).total)


def test_a_new_piece_is_what_read_its_text(t5: tuple[Path, T5Tokenizer], texts: list[str]) -> None:
    old = t5[1]
    draw = random.Random(1)
    words = ["".join(draw.choices("abdefgik", k=4)) for _ in range(30)]
    new = T5Tokenizer.train([*texts, " ".join(words * 20)], 420)
    sources = sources_of(old, new)
    assert all(0 <= token < old.vocab_size for ids in sources for token in ids)
    joined = [number for number, ids in enumerate(sources) if len(ids) > 1]
    assert joined
    for number in joined:
        text = str(new.convert_ids_to_tokens(number)).replace("▁", " ")
        assert list(sources[number]) == old.encode(text, add_special_tokens=False)


def test_what_is_refused(pair: Path, t5: tuple[Path, T5Tokenizer], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is of family electra, the recipe of t5"):
        shaped(recipe(pair, family="t5"))
    with pytest.raises(UserError, match="no model"):
        shaped(recipe(tmp_path / "nowhere"))
    for objective in ("electric", "all-tokens"):
        with pytest.raises(UserError, match=f"start_from means nothing to the objective '{objective}'"):
            recipe(pair, objective=objective)


def test_a_pair_s_generator_is_not_replaced(pair: Path, shards: Shards, tokenizer: ElectraTokenizer) -> None:
    with pytest.raises(UserError, match="leave out generator"):
        pretraining_of(shaped(recipe(pair, generator=str(pair))), shards, tokenizer, CPU)
