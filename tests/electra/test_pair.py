"""The pre-training pair: a batch of replaced-token detection worked out by hand, sharing, files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from unmask.electra.config import ElectraConfig, generator_config
from unmask.electra.pair import ElectraPair, ReplacedTokenLosses
from unmask.errors import UserError
from unmask.nn.ragged import Layout
from unmask.nn.sampling import uniforms

DISCRIMINATOR = ElectraConfig(
    vocab_size=24,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    initializer_range=0.3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
GENERATOR = generator_config(DISCRIMINATOR, 0.5)
MASK = 4
LENGTHS = (6, 9)
TOKENS = torch.tensor([2, 7, 8, 9, 10, 3, 2, 11, 12, 13, 14, 15, 16, 17, 3])
TYPES = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
#: Of the drawn places, 9 stays unmasked, as 15 % of them do.
DRAWN = torch.tensor([2, 4, 9, 11, 13])
MASKED = TOKENS.index_fill(0, DRAWN[[0, 1, 3, 4]], MASK)


def pair_of(seed: int = 0) -> ElectraPair:
    torch.manual_seed(seed)
    return ElectraPair.fresh(GENERATOR, DISCRIMINATOR)


def step(pair: ElectraPair, noise_seed: int, temperature: float = 1.0) -> ReplacedTokenLosses:
    layout = Layout.of(LENGTHS)
    return pair.replaced_token_step(
        TOKENS, MASKED, DRAWN, layout, TYPES, noise_seed=noise_seed, temperature=temperature
    )


def padded(stream: Tensor) -> Tensor:
    """(2, 9), as a user would give it to the halves one by one."""
    rows = torch.zeros(2, 9, dtype=torch.long)
    rows[0, :6], rows[1] = stream[:6], stream[6:]
    return rows


def by_hand(pair: ElectraPair, noise_seed: int, temperature: float) -> dict[str, object]:
    """The same step through the halves' public calls and plain Python."""
    mask = padded(torch.ones(15, dtype=torch.long))
    types = padded(TYPES)
    all_logits = pair.generator(padded(MASKED), mask, types).logits
    logits = torch.cat([all_logits[0, :6], all_logits[1]])[DRAWN]
    log_probabilities = logits.log_softmax(-1)
    generator_sum = -sum(log_probabilities[i, TOKENS[place]] for i, place in enumerate(DRAWN))

    numbers = uniforms(noise_seed, Layout.of([6, 9]).places[DRAWN]).tolist()
    sampled = []
    for row, uniform in zip((logits / temperature).softmax(-1).tolist(), numbers, strict=True):
        height, choice = 0.0, -1
        while height <= uniform:
            choice += 1
            height += row[choice]
        sampled.append(choice)
    corrupted = TOKENS.tolist()
    labels = [0.0] * 15
    for place, token in zip(DRAWN.tolist(), sampled, strict=True):
        labels[place] = float(corrupted[place] != token)
        corrupted[place] = token

    all_logits = pair.discriminator(padded(torch.tensor(corrupted)), mask, types).logits
    scores = torch.cat([all_logits[0, :6], all_logits[1]])
    suspicion = scores.sigmoid()
    judged = (suspicion > 0.5).tolist()
    discriminator_sum = -sum(
        torch.log(p if label else 1 - p) for p, label in zip(suspicion, labels, strict=True)
    )
    return {
        "generator_sum": generator_sum,
        "discriminator_sum": discriminator_sum,
        "sampled": sampled,
        "labels": labels,
        "hits": sum(int(a) == int(b) for a, b in zip(logits.argmax(-1), TOKENS[DRAWN], strict=True)),
        "right": sum(guess == bool(label) for guess, label in zip(judged, labels, strict=True)),
        "found": sum(guess and bool(label) for guess, label in zip(judged, labels, strict=True)),
    }


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("noise_seed", [3, 4, 5])
def test_a_batch_by_hand(noise_seed: int, temperature: float) -> None:
    pair = pair_of()
    found = step(pair, noise_seed, temperature)
    wanted = by_hand(pair, noise_seed, temperature)
    torch.testing.assert_close(found.generator_loss_sum, wanted["generator_sum"], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.discriminator_loss_sum, wanted["discriminator_sum"], atol=1e-4, rtol=0)
    assert (found.drawn, found.tokens) == (5, 15)
    assert found.replaced == sum(wanted["labels"])
    assert found.generator_hits == wanted["hits"]
    assert found.discriminator_hits == wanted["right"]
    assert found.found == wanted["found"]
    loss = wanted["generator_sum"] / 5 + 50 * wanted["discriminator_sum"] / 15
    torch.testing.assert_close(found.loss(), loss, atol=1e-3, rtol=0)

    # Gradients of everything, the shared embeddings among them, which both losses reach.
    parameters = dict(pair.named_parameters())
    ours = torch.autograd.grad(found.loss(), list(parameters.values()))
    theirs = torch.autograd.grad(loss, list(parameters.values()))
    for name, one, other in zip(parameters, ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-3 * other.abs().max() + 1e-6, name


def test_a_sample_that_is_the_original_counts_as_original() -> None:
    pair = pair_of()
    # The output bias makes the generator sure of one token, which is the original at place 9 alone.
    with torch.no_grad():
        pair.generator.generator_head.output.bias[TOKENS[9]] = 100.0
    wanted = by_hand(pair, 0, 1.0)
    assert wanted["sampled"] == [13] * 5
    assert [place for place, label in enumerate(wanted["labels"]) if label] == [2, 4, 11, 13]
    found = step(pair, 0)
    assert found.replaced == 4
    assert found.generator_hits == 1
    torch.testing.assert_close(found.discriminator_loss_sum, wanted["discriminator_sum"], atol=1e-4, rtol=0)
    with torch.no_grad():
        pair.discriminator.discriminator_head.output.bias.fill_(1000.0)
    found = step(pair, 0)
    assert found.found == 4
    assert found.discriminator_hits == 4
    metrics = {name: value.item() for name, value in found.metrics().items()}
    assert metrics["discriminator_recall"] == 1
    assert metrics["replaced_of_drawn"] == pytest.approx(4 / 5)
    assert metrics["replaced_rate"] == pytest.approx(4 / 15)
    assert metrics["discriminator_accuracy"] == pytest.approx(4 / 15)
    assert metrics["generator_accuracy"] == pytest.approx(1 / 5)


def test_no_gradient_from_the_discriminator_to_the_generator() -> None:
    pair = pair_of()
    found = step(pair, 3)
    found.discriminator_loss_sum.backward()
    shared = {id(p) for p in pair.discriminator.encoder.embeddings.parameters()}
    own = [p for p in pair.generator.parameters() if id(p) not in shared]
    assert own
    assert all(p.grad is None for p in own)
    assert pair.generator.output_weight.grad is not None


def test_the_same_seed_draws_the_same() -> None:
    pair = pair_of().train()
    torch.manual_seed(1)
    first = step(pair, 3)
    torch.rand(5)
    again = step(pair, 3)
    assert torch.equal(first.loss(), again.loss())
    # At a high temperature another seed all but surely draws something else.
    others = [step(pair, seed, 50.0).discriminator_loss_sum.item() for seed in range(5)]
    assert len(set(others)) == 5


def test_steps_join() -> None:
    pair = pair_of()
    one, other = step(pair, 1), step(pair, 2)
    both = ReplacedTokenLosses.joined([one, other])
    assert (both.drawn, both.tokens) == (10, 30)
    torch.testing.assert_close(both.loss(), (one.loss() + other.loss()) / 2)


def test_one_set_of_embeddings() -> None:
    pair = pair_of()
    generator, discriminator = pair.generator.encoder, pair.discriminator.encoder
    assert generator.embeddings is discriminator.embeddings
    assert pair.generator.output_weight is discriminator.embeddings.token.weight
    assert generator.projection is not discriminator.projection
    names = [name for name, _ in pair.named_parameters() if ".embeddings." in name]
    assert len(names) == 5


@pytest.mark.parametrize("size", ["vocab_size", "embedding_size", "max_position_embeddings"])
def test_what_cannot_be_shared(size: str) -> None:
    with pytest.raises(UserError, match=f"generator's {size} is 10, the discriminator's"):
        ElectraPair.fresh(replace(GENERATOR, **{size: 10}), DISCRIMINATOR)


def test_there_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = pair_of()
    pair.save_pretrained(tmp_path)
    again = ElectraPair.from_pretrained(tmp_path)
    assert not caplog.text
    assert again.generator.encoder.embeddings is again.discriminator.encoder.embeddings
    torch.testing.assert_close(step(again, 3).loss(), step(pair, 3).loss())
    for half, name in (("generator", "ElectraForMaskedLM"), ("discriminator", "ElectraForPreTraining")):
        theirs, report = getattr(transformers, name).from_pretrained(
            tmp_path / half, output_loading_info=True
        )
        assert not any(report.values()), report
        ids = TOKENS[None, :9]
        found = getattr(pair, half).eval()(ids).logits
        torch.testing.assert_close(found, theirs.eval()(ids).logits, atol=1e-4, rtol=0)
    one, other = (load_file(tmp_path / half / "model.safetensors") for half in ("generator", "discriminator"))
    name = "electra.embeddings.word_embeddings.weight"
    assert torch.equal(one[name], other[name])


def test_halves_of_unlike_origin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = pair_of(1), pair_of(2)
    one.generator.save_pretrained(tmp_path / "generator")
    with pytest.raises(UserError, match="no directory discriminator"):
        ElectraPair.from_pretrained(tmp_path)
    other.discriminator.save_pretrained(tmp_path / "discriminator")
    pair = ElectraPair.from_pretrained(tmp_path)
    assert "embeddings differ" in caplog.text
    table = other.discriminator.encoder.embeddings.token.weight
    assert torch.equal(pair.generator.output_weight, table)


def test_training_in_bfloat16_learns() -> None:
    pair = pair_of().train()
    optimiser = torch.optim.AdamW(pair.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            loss = step(pair, 3).loss()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(math.isfinite(value) for value in losses)
    assert all(parameter.dtype == torch.float32 for parameter in pair.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_a_step_is_deterministic() -> None:
    def gradients() -> list[Tensor]:
        pair = ElectraPair.fresh(
            replace(GENERATOR, hidden_dropout_prob=0.1), replace(DISCRIMINATOR, hidden_dropout_prob=0.1)
        ).train()
        step(pair, 3).loss().backward()
        return [parameter.grad for parameter in pair.parameters() if parameter.grad is not None]

    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            torch.manual_seed(0)
            runs.append(gradients())
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
