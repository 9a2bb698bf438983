"""Every shipped recipe: it makes a model whose step has the shapes that it should, and nothing looks wrong with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.pair import ElectraPair
from unmask.nn.ragged import Layout
from unmask.t5.model import T5ForConditionalGeneration
from unmask.training import t5
from unmask.training.checks import check_recipe
from unmask.training.recipe import PretrainRecipe, shipped_recipes

#: Millions of parameters: those of the published models (the Hub's checkpoints; ELECTRA's with both halves), or what
#: the recipe's comment says.
PARAMETERS = {
    "t5-small": 77.0,
    "t5-base": 247.6,
    "t5-nano": 247.6,
    "t5-h100": 77.0,
    "t5-laptop": 10.5,
    "t5-babylm": 39.3,
    "t5-tiny": 1.3,
    "electra-small": 14.1,
    "electra-base": 119.4,
    "electra-large": 354.7,
    "electra-h100": 14.1,
    "electra-laptop": 9.6,
    "electra-babylm": 27.1,
    "electra-tiny": 0.9,
}


def stream(tokens: int) -> Tensor:
    return torch.zeros(tokens, dtype=torch.int64, device="meta")


def t5_step(recipe: PretrainRecipe) -> tuple[nn.Module, Tensor]:
    with torch.device("meta"):
        model = T5ForConditionalGeneration(t5.model_config(recipe, recipe.vocab_size + 100)).train()
    lengths, targets = [recipe.length] * 2, [recipe.length // 4] * 2
    layouts = Layout.of(lengths, "meta"), Layout.of(targets, "meta")
    return model, model.loss_sum(stream(sum(lengths)), layouts[0], stream(sum(targets)), layouts[1])


def electra_step(recipe: PretrainRecipe) -> tuple[nn.Module, Tensor]:
    config = ElectraConfig(
        vocab_size=recipe.vocab_size,
        embedding_size=recipe.chosen("embedding_width", recipe.width),
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.feed_forward_width,
        max_position_embeddings=recipe.length,
    )
    with torch.device("meta"):
        pair = ElectraPair.fresh(
            generator_config(config, recipe.chosen("generator_share", 0.25)), config
        ).train()
    layout = Layout.of([recipe.length] * 2, "meta")
    tokens, drawn = stream(2 * recipe.length), stream(recipe.length // 4)
    return pair, pair.replaced_token_step(tokens, tokens, drawn, layout, noise_seed=0).loss()


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_step_of_its_shapes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that nothing in it waits for an accelerator: here whatever reads a number from a tensor is an error."""
    # Autocast does not know the device on which nothing is computed.
    monkeypatch.setattr("unmask.nn.losses._autocast_type", lambda device: None)
    recipe = PretrainRecipe.load(name)
    model, loss = (t5_step if recipe.family == "t5" else electra_step)(recipe)
    assert loss.shape == ()
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(PARAMETERS[name], abs=0.05)


@pytest.mark.parametrize("name", shipped_recipes())
def test_nothing_looks_wrong(name: str) -> None:
    assert not list(check_recipe(PretrainRecipe.load(name)))


def test_all_are_known() -> None:
    assert set(shipped_recipes()) == set(PARAMETERS)
