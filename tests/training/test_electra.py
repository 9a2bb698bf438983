"""ELECTRA's recipe settings: each does in training what it says, and nothing else."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from unmask.data.shards import Shards
from unmask.electra.baselines import AllTokensMaskedLM
from unmask.electra.config import SHAPES, generator_config
from unmask.electra.electric import score_texts
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR_WEIGHT, ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.nn.sampling import uniforms
from unmask.training.electra import (
    Inputs,
    electra_pretraining,
    filler_config,
    held_out_batches,
    model_config,
    step_flops,
    training_batches,
)
from unmask.training.family import Pretraining
from unmask.training.held_out import held_out_metrics
from unmask.training.meter import MEASURED
from unmask.training.metrics import read_metrics
from unmask.training.optimisers import UncorrectedAdamW, make_optimiser
from unmask.training.pretraining import pretrain
from unmask.training.recipe import PretrainRecipe

CPU = torch.device("cpu")


def recipe(**changes: Any) -> PretrainRecipe:
    values: dict[str, Any] = {
        "family": "electra",
        "vocab_size": 140,
        "layers": 1,
        "width": 16,
        "heads": 2,
        "feed_forward_width": 24,
        "embedding_width": 8,
        "length": 24,
        "batch_size": 6,
        "validation_share": 0.1,
        "steps": 4,
        "learning_rate": 1e-2,
        "precision": "float32",
        "log_every": 1,
    }
    return PretrainRecipe(**(values | changes))


Make = Callable[..., Pretraining]
Run = Callable[..., Path]


@pytest.fixture
def made(shards: Shards, tokenizer: ElectraTokenizer) -> Make:
    """made(settings…): a run's parts, its weights drawn from one seed."""

    def make(**settings: Any) -> Pretraining:
        torch.manual_seed(0)
        return electra_pretraining(recipe(**settings), shards, tokenizer, CPU)

    return make


@pytest.fixture
def run(shards: Shards, tokenizer: ElectraTokenizer) -> Run:
    """run(directory, settings…): train and give the model's directory."""

    def train(directory: Path, **settings: Any) -> Path:
        return pretrain(recipe(**settings), shards, tokenizer, directory, device=CPU)

    return train


def gradients(work: Pretraining, step: int = 0) -> dict[str, Tensor | None]:
    work.model.zero_grad()
    work.loss(step).total.backward()
    return {name: parameter.grad for name, parameter in work.model.named_parameters()}


def measured(work: Pretraining, step: int = 0) -> dict[str, float]:
    return {name: float(value) for name, value in work.loss(step).measured.metrics().items()}


# --- objectives ------------------------------------------------------------------------------------------


def numbers(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's log that hold numbers."""
    return [line for line in read_metrics(directory / "metrics.jsonl") if line["kind"] != "sample"]


PAIR_METRICS = {
    "generator_loss",
    "generator_accuracy",
    "discriminator_loss",
    "discriminator_accuracy",
    "discriminator_recall",
    "replaced_rate",
    "replaced_of_drawn",
}


def test_both_halves_are_measured_apart(run: Run, tmp_path: Path) -> None:
    run(tmp_path)
    kinds = [line["kind"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert kinds == ["evaluation", "sample", *["training"] * 4, "evaluation", "sample"]
    for line in numbers(tmp_path):
        beside = {"step", "kind"} | ({"learning_rate", *MEASURED} if line["kind"] == "training" else set())
        assert set(line) == PAIR_METRICS | beside
        assert 0 < line["replaced_of_drawn"] <= 1
        assert 0 < line["replaced_rate"] < 0.2


@pytest.mark.parametrize(
    ("settings", "training", "held_out"),
    [
        ({"objective": "masked-lm"}, {"loss"}, {"loss", "accuracy"}),
        (
            {"objective": "all-tokens"},
            {
                "generator_loss",
                "generator_accuracy",
                "all_tokens_loss",
                "copy_recall",
                "replaced_rate",
                "replaced_of_drawn",
            },
            None,
        ),
        ({"objective": "all-tokens", "embedding_sharing": "disentangled"}, None, None),
    ],
)
def test_baselines_end_as_a_masked_lm(
    settings: dict[str, Any],
    training: set[str] | None,
    held_out: set[str] | None,
    run: Run,
    tmp_path: Path,
) -> None:
    directory = run(tmp_path, steps=30, **settings)
    lines = numbers(tmp_path)
    if training:
        assert set(lines[1]) - {"step", "kind", "learning_rate", *MEASURED} == training
        assert set(lines[0]) - {"step", "kind"} == (held_out or training)
    losses = [line[name] for line in (lines[0], lines[-1]) for name in line if name.endswith("loss")]
    assert losses[len(losses) // 2] < losses[0], "the held-out loss falls"

    theirs, report = transformers.ElectraForMaskedLM.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values()), report
    ours = ElectraForMaskedLM.from_pretrained(directory)
    assert (ours.config.hidden_size, ours.config.num_hidden_layers) == (16, 1)
    ids = torch.tensor([[2, 10, 11, 12, 3]])
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=0)
    assert ElectraTokenizer.from_pretrained(directory).vocab_size == ours.config.vocab_size


def test_electric_ends_as_an_energy_model(run: Run, tmp_path: Path) -> None:
    directory = run(tmp_path, steps=30, objective="electric")
    lines = numbers(tmp_path)
    assert set(lines[0]) - {"step", "kind"} == {
        "noise_loss",
        "energy_loss",
        "energy_accuracy",
        "energy_recall",
    }
    assert lines[-1]["noise_loss"] < lines[0]["noise_loss"]
    theirs, report = transformers.ElectraForPreTraining.from_pretrained(
        directory / "discriminator", output_loading_info=True
    )
    assert not any(report.values()), report
    tokenizer = ElectraTokenizer.from_pretrained(directory)
    (score,) = score_texts(
        ElectraForPreTraining.from_pretrained(directory / "discriminator"), tokenizer, ["abak bdel"]
    )
    ids = torch.tensor(tokenizer("abak bdel")["input_ids"])[None]
    assert score == pytest.approx(-theirs(ids).logits[0, 1:-1].sum().item(), abs=1e-4)


def test_masked_diffusion_trains_a_pair_that_writes(run: Run, tmp_path: Path) -> None:
    directory = run(tmp_path, steps=40, objective="masked-diffusion")
    lines = numbers(tmp_path)
    assert set(lines[0]) - {"step", "kind"} == PAIR_METRICS
    assert lines[-1]["generator_loss"] < lines[0]["generator_loss"], "the held-out bound falls"
    assert np.mean([line["replaced_rate"] for line in lines]) > 0.3, "every noise level is trained"
    writer = ElectraForConditionalGeneration.from_pretrained(directory)
    assert writer.discriminator is not None
    assert writer.generator.config.hidden_size == writer.discriminator.config.hidden_size
    assert writer.generate([[2, 10, 3]], max_new_tokens=5).shape == (1, 8)


def test_masked_diffusion_draws_its_own_rates() -> None:
    with pytest.raises(UserError, match="mask_rate means nothing to the objective 'masked-diffusion'"):
        recipe(objective="masked-diffusion", mask_rate=0.3)


def test_masked_lm_by_hand(made: Make) -> None:
    work = made(objective="masked-lm")
    assert isinstance(work.model, ElectraForMaskedLM)
    inputs = Inputs.of(work.batches[0], CPU)
    rows = inputs.masked.split(list(inputs.layout.lengths))
    types = inputs.types.split(list(inputs.layout.lengths))
    logits = torch.cat(
        [
            work.model(row[None], token_type_ids=kinds[None]).logits[0]
            for row, kinds in zip(rows, types, strict=True)
        ]
    )
    chances = logits.log_softmax(-1)[inputs.drawn, inputs.tokens[inputs.drawn]]
    loss = work.loss(0)
    torch.testing.assert_close(loss.total, -chances.mean())


def test_all_tokens_by_hand(made: Make) -> None:
    """p(token) = D where it is what is seen, plus (1 - D) · softmax."""
    work = made(objective="all-tokens", discriminator_weight=3.0)
    both = work.model
    assert isinstance(both, AllTokensMaskedLM)
    with torch.no_grad():
        both.copy_head.output.bias.fill_(0.7)
    inputs = Inputs.of(work.batches[0], CPU)
    found = both.step(*inputs.arguments(), noise_seed=3)
    numbers = uniforms(3, inputs.layout.places[inputs.drawn])
    hidden = both.generator.hidden(inputs.masked, inputs.layout, inputs.types, at=inputs.drawn)
    seen = inputs.tokens.index_copy(0, inputs.drawn, both.generator.sample(hidden, numbers)[0])
    encoded = both.model.encoder(seen, inputs.layout, inputs.types)
    softmax = both.model.logits(both.model.generator_head(encoded)).softmax(-1)
    written = softmax.gather(1, inputs.tokens[:, None])[:, 0]
    copying = both.copy_head(encoded).sigmoid()
    chances = copying * (seen == inputs.tokens) + (1 - copying) * written
    torch.testing.assert_close(found.loss_sum, -chances.log().sum(), atol=1e-4, rtol=1e-5)
    assert found.replaced == (seen != inputs.tokens).sum()
    total = found.generator_loss_sum / len(inputs.drawn) + 3.0 * found.loss_sum / len(inputs.tokens)
    torch.testing.assert_close(found.loss(3.0), total)

    by_step = torch.autograd.grad(found.loss_sum, list(both.model.parameters()), allow_unused=True)
    by_hand = torch.autograd.grad(-chances.log().sum(), list(both.model.parameters()), allow_unused=True)
    for one, other in zip(by_step, by_hand, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


# --- sharing ---------------------------------------------------------------------------------------------


def table_gradients(work: Pretraining) -> dict[str, Tensor | None]:
    return {name: value for name, value in gradients(work).items() if ".embeddings." in name}


def test_separate_embeddings(made: Make) -> None:
    found = table_gradients(made(embedding_sharing="separate"))
    assert len(found) == 10
    assert all(value is not None and value.abs().sum() > 0 for value in found.values())


def test_disentangled_embeddings(made: Make) -> None:
    """DeBERTaV3: E_discriminator = stop_gradient(E_generator) + residual, which starts at 0."""
    work = made(embedding_sharing="disentangled")
    pair = work.model
    assert isinstance(pair, ElectraPair)
    own, base = pair.discriminator.encoder.embeddings, pair.generator.encoder.embeddings
    for name in ("token", "position", "token_type"):
        assert torch.equal(getattr(own, name).weight, getattr(base, name).weight)
        assert not getattr(own, name).parametrizations.weight.original.any()
    assert own.norm is not base.norm

    out = pair.replaced_token_step(*Inputs.of(work.batches[0], CPU).arguments(), noise_seed=0)
    out.discriminator_loss_sum.backward(retain_graph=True)
    assert base.token.weight.grad is None
    residual = own.token.parametrizations.weight.original
    assert residual.grad is not None
    from_discriminator = residual.grad.clone()
    out.generator_loss_sum.backward()
    assert torch.equal(residual.grad, from_discriminator), "the generator's loss does not reach the residual"
    assert base.token.weight.grad is not None

    optimiser = torch.optim.SGD(pair.parameters(), lr=0.01)
    before = base.token.weight.clone()
    optimiser.step()
    moved = base.token.weight - 0.01 * from_discriminator
    torch.testing.assert_close(own.token.weight, moved)  # it follows the generator's table
    assert not torch.equal(base.token.weight, before)


def test_a_disentangled_pair_there_and_back(made: Make, tmp_path: Path) -> None:
    work = made(embedding_sharing="disentangled")
    pair = work.model
    assert isinstance(pair, ElectraPair)
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    pair.save_pretrained(tmp_path)
    assert pair.discriminator.encoder.embeddings.token.parametrizations, "saving leaves it as it was"
    again = ElectraPair.from_pretrained(tmp_path, sharing="disentangled").train()
    arguments = Inputs.of(work.batches[0], CPU).arguments()
    one, other = (each.replaced_token_step(*arguments, noise_seed=0).loss() for each in (pair, again))
    torch.testing.assert_close(one, other)
    theirs, report = transformers.ElectraForPreTraining.from_pretrained(
        tmp_path / "discriminator", output_loading_info=True
    )
    assert not any(report.values()), report
    table = theirs.electra.embeddings.word_embeddings.weight
    assert torch.equal(table, pair.discriminator.encoder.embeddings.token.weight)


@pytest.mark.parametrize("settings", [{"embedding_sharing": "disentangled"}, {"objective": "all-tokens"}])
def test_continued_bit_by_bit(settings: dict[str, Any], run: Run, tmp_path: Path) -> None:
    settings = settings | {"dropout": 0.1, "checkpoint_every": 2, "mask_rate": 0.4, "final_mask_rate": 0.1}
    run(tmp_path / "whole", **settings)
    model = run(tmp_path / "cut", **settings)
    shutil.rmtree(model)
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000004")
    run(tmp_path / "cut", **settings)
    files = sorted(path.relative_to(model) for path in model.rglob("*.safetensors"))
    assert files
    for file in files:
        one, other = (load_file(tmp_path / each / "model" / file) for each in ("whole", "cut"))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_untied_output(made: Make, tmp_path: Path) -> None:
    work = made(tied=False)
    pair = work.model
    assert isinstance(pair, ElectraPair)
    assert pair.generator.output_weight is not pair.generator.encoder.embeddings.token.weight
    assert gradients(work)["generator.generator_head.output.weight"] is not None
    pair.save_pretrained(tmp_path)
    again = ElectraPair.from_pretrained(tmp_path)
    assert torch.equal(again.generator.output_weight, pair.generator.output_weight)


# --- schedules -------------------------------------------------------------------------------------------


def drawn_share(batch: Any) -> float:
    return len(batch["drawn"]) / len(batch["tokens"])


def test_mask_rate_ramp(made: Make, shards: Shards, tokenizer: ElectraTokenizer) -> None:
    settings = recipe(mask_rate=0.5, final_mask_rate=0.1, steps=100, batch_size=50)
    batches = training_batches(settings, shards, tokenizer)
    shares = [drawn_share(batches[step]) for step in (0, 50, 100, 150)]
    assert shares == pytest.approx([0.5, 0.3, 0.1, 0.1], abs=0.02)
    assert drawn_share(held_out_batches(settings, shards, tokenizer)[""][0]) == pytest.approx(0.1, abs=0.02)
    steady = training_batches(recipe(mask_rate=0.5, steps=100, batch_size=50), shards, tokenizer)
    assert drawn_share(steady[100]) == pytest.approx(0.5, abs=0.02)
    assert (batches[7]["tokens"] == steady[7]["tokens"]).all(), "the text is the same at every rate"


def test_temperature_ramp(made: Make) -> None:
    work = made(temperature=1.0, final_temperature=1e-3, steps=10, batch_size=40)
    pair = work.model
    assert isinstance(pair, ElectraPair)
    # At temperature 1 the generator guesses; near 0 it takes its likeliest token, here always the same.
    inputs = Inputs.of(work.batches[0], CPU)
    likeliest = int(torch.bincount(inputs.tokens[inputs.drawn]).argmax())
    with torch.no_grad():
        pair.generator.generator_head.output.bias[likeliest] = 1.0
    likeliest_is_right = (inputs.tokens[inputs.drawn] == likeliest).float().mean()
    assert abs(measured(work, 0)["replaced_of_drawn"] - (1 - likeliest_is_right.item())) > 0.01
    out = pair.replaced_token_step(*inputs.arguments(), noise_seed=0, temperature=1e-3)
    assert (out.replaced / out.drawn).item() == pytest.approx(1 - likeliest_is_right.item())
    last = Inputs.of(work.batches[10], CPU)
    wanted = (last.tokens[last.drawn] != likeliest).float().mean().item()
    assert measured(work, 10)["replaced_of_drawn"] == pytest.approx(wanted)
    work.model.eval()
    with torch.inference_mode():
        assert held_out_metrics(work)["replaced_of_drawn"] == pytest.approx(1.0, abs=0.1)


# --- a generator that is given ---------------------------------------------------------------------------


@pytest.fixture
def trained(run: Run, tmp_path: Path) -> Path:
    """A masked LM to begin with, of other width than a fresh generator's."""
    return run(tmp_path / "trained", objective="masked-lm", width=12, feed_forward_width=20)


@pytest.mark.parametrize("sharing", [None, "disentangled"])
def test_frozen_generator(sharing: str | None, trained: Path, run: Run, tmp_path: Path) -> None:
    settings = {"generator": str(trained), "freeze_generator": True, "embedding_sharing": sharing}
    model = run(tmp_path / "run", dropout=0.3, temperature=2.0, final_temperature=1.0, **settings)
    given, kept = (load_file(path / "model.safetensors") for path in (trained, model / "generator"))
    assert all(torch.equal(given[name], kept[name]) for name in given)
    table = load_file(model / "discriminator" / "model.safetensors")[
        "electra.embeddings.word_embeddings.weight"
    ]
    near = torch.nn.functional.cosine_similarity(
        table.flatten(), given["electra.embeddings.word_embeddings.weight"].flatten(), 0
    )
    assert near > 0.5 if sharing else near < 0.5


def test_a_frozen_generator_has_no_dropout_and_no_gradient(trained: Path, made: Make) -> None:
    work = made(generator=str(trained), freeze_generator=True, dropout=0.5)
    pair = work.model
    assert isinstance(pair, ElectraPair)
    pair.train()
    losses = [measured(work)["generator_loss"] for _ in range(2)]
    assert losses[0] == losses[1]
    assert len({measured(work)["discriminator_loss"] for _ in range(2)}) == 2
    assert all(value is None for name, value in gradients(work).items() if name.startswith("generator."))


def test_a_given_generator_that_learns_on(trained: Path, made: Make) -> None:
    work = made(generator=str(trained))
    pair = work.model
    assert isinstance(pair, ElectraPair)
    given = load_file(trained / "model.safetensors")["electra.embeddings.word_embeddings.weight"]
    assert torch.equal(pair.generator.encoder.embeddings.token.weight, given)
    assert pair.generator.encoder.embeddings is pair.discriminator.encoder.embeddings
    fresh = measured(made())["generator_loss"]
    assert measured(work)["generator_loss"] < fresh


def test_another_generator_is_another_run(trained: Path, run: Run, tmp_path: Path, texts: list[str]) -> None:
    settings = {"generator": str(trained), "freeze_generator": True}
    run(tmp_path / "run", **settings)
    weights = load_file(trained / "model.safetensors")
    model = ElectraForMaskedLM.from_pretrained(trained)
    with torch.no_grad():
        model.generator_head.output.bias.add_(1.0)
    model.save_pretrained(trained)
    assert weights.keys() == load_file(trained / "model.safetensors").keys()
    with pytest.raises(UserError, match="another generator"):
        run(tmp_path / "run", **settings)
    with pytest.raises(UserError, match=r"reads 24 tokens and length is 30"):
        run(tmp_path / "long", length=30, **settings)
    ElectraTokenizer.train(texts, 130).save_pretrained(trained)
    with pytest.raises(UserError, match=r"another vocabulary than this run: .* --tokenizer"):
        run(tmp_path / "other", **settings)


# --- sizes, weights, optimiser ---------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_generator_share(share: float, made: Make, tokenizer: ElectraTokenizer) -> None:
    pair = made(generator_share=share).model
    assert isinstance(pair, ElectraPair)
    assert pair.generator.config.hidden_size == 16 * share
    assert pair.generator.config.intermediate_size == 24 * share
    assert pair.generator.config.num_hidden_layers == pair.discriminator.config.num_hidden_layers


def test_discriminator_weight(made: Make) -> None:
    plain, heavy = (made(discriminator_weight=weight) for weight in (None, 7.0))
    values = measured(plain)
    for work, weight in ((plain, 50.0), (heavy, 7.0)):
        wanted = values["generator_loss"] + weight * values["discriminator_loss"]
        assert work.loss(0).total.item() == pytest.approx(wanted, rel=1e-5)


def test_adam_without_bias_correction(made: Make) -> None:
    """The first step is lr · (1 - β1) g / (sqrt(1 - β2) |g| + ε): 3.16 times the corrected one."""
    steps = {}
    for name in ("adamw", "electra-adam"):
        work = made()
        settings = recipe(optimiser=name).loop_settings()
        optimiser = make_optimiser(
            settings.optimiser, work.model.named_parameters(), learning_rate=0.01, weight_decay=0.0
        )
        gradient = gradients(work)["generator.generator_head.output.bias"]
        before = work.model.get_parameter("generator.generator_head.output.bias").clone()
        optimiser.step()
        after = work.model.get_parameter("generator.generator_head.output.bias")
        seen = gradient.abs() > 1e-3
        steps[name] = ((before - after) / gradient.sign())[seen].mean().item()
    assert isinstance(optimiser, UncorrectedAdamW)
    assert steps["adamw"] == pytest.approx(0.01, rel=1e-2)
    assert steps["electra-adam"] == pytest.approx(0.01 * 0.1 / math.sqrt(0.001), rel=2e-2)


@pytest.mark.parametrize(
    ("name", "rate", "batch", "length", "steps", "masked"),
    [
        ("small", 5e-4, 128, 128, 1_000_000, 0.15),
        ("base", 2e-4, 256, 512, 766_000, 0.15),
        ("large", 2e-4, 2048, 512, 400_000, 0.25),
    ],
)
def test_published_recipes(
    name: str, rate: float, batch: int, length: int, steps: int, masked: float
) -> None:
    """ELECTRA paper, table 6."""
    published = PretrainRecipe.load(f"electra-{name}")
    shape = SHAPES[name]

    class Published:
        vocab_size, pad_token_id = 30522, 0

    config = model_config(published, Published())  # type: ignore[arg-type]
    assert config.max_position_embeddings == length
    for size in ("vocab_size", "hidden_size", "embedding_size", "num_hidden_layers"):
        assert getattr(config, size) == getattr(shape.discriminator, size)
    for size in ("num_attention_heads", "intermediate_size", "hidden_dropout_prob"):
        assert getattr(config, size) == getattr(shape.discriminator, size)
    generator = generator_config(shape.discriminator, shape.generator_width)
    assert filler_config(published, config).hidden_size == generator.hidden_size
    found = (published.learning_rate, published.batch_size, published.steps)
    assert found == (rate, batch, steps)
    assert published.chosen("mask_rate", 0.15) == masked
    assert (published.optimiser, published.schedule, published.warmup_steps) == (
        "electra-adam",
        "electra",
        10_000,
    )
    assert (published.weight_decay, published.clip_norm, DISCRIMINATOR_WEIGHT) == (0.01, 1.0, 50)


def test_flops_of_a_recipe(shards: Shards, tokenizer: ElectraTokenizer, trained: Path) -> None:
    batch = training_batches(recipe(), shards, tokenizer)[0]
    masked, pair = (
        step_flops(recipe(objective=objective), tokenizer)(batch)
        for objective in ("masked-lm", "replaced-tokens")
    )
    wider = step_flops(recipe(generator_share=1.0), tokenizer)(batch)
    every = step_flops(recipe(objective="all-tokens"), tokenizer)(batch)
    assert masked < pair < wider
    assert every > pair
    unfrozen, frozen = (
        step_flops(recipe(generator=str(trained), freeze_generator=freeze), tokenizer)(batch)
        for freeze in (False, True)
    )
    assert frozen < unfrozen


# --- recipes that cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"objective": "masked-lm", "generator_share": 0.5},
            "generator_share means nothing to the objective",
        ),
        ({"objective": "masked-lm", "temperature": 0.5}, "temperature means nothing to the objective"),
        ({"objective": "all-tokens", "generator": "x"}, "generator means nothing to the objective"),
        ({"objective": "electric", "tied": True}, "tied means nothing to the objective 'electric'"),
        ({"freeze_generator": True}, "freeze_generator needs a trained one"),
        (
            {"generator": "x", "freeze_generator": True, "embedding_sharing": "shared"},
            "'separate' or 'disentangled'",
        ),
        ({"generator": "x", "generator_share": 0.5}, "generator_share is of a generator drawn afresh"),
        ({"temperature": 0.0}, "temperature is 0.0, it must be above 0"),
        ({"initializer_range": 0.0}, "initializer_range is 0.0, it must be above 0"),
        ({"final_mask_rate": 1.0}, "final_mask_rate is 1.0, it must be a share"),
        ({"family": "t5", "embedding_width": None, "temperature": 0.5}, "setting of electra"),
        ({"family": "t5", "embedding_width": None, "initializer_range": 0.1}, "setting of electra"),
    ],
)
def test_settings_that_contradict(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(**settings)


def test_first_weights_are_drawn_as_wide_as_the_recipe_says(made: Make) -> None:
    def deviation(**settings: Any) -> float:
        model = made(width=64, **settings).model
        assert isinstance(model, ElectraPair)
        return float(model.discriminator.encoder.embeddings.token.weight.detach().std())

    # A normal truncated at two deviations keeps 0.88 of its deviation.
    assert deviation() == pytest.approx(0.88 * 0.02, rel=0.05)
    assert deviation(initializer_range=0.1) == pytest.approx(0.88 * 0.1, rel=0.05)
