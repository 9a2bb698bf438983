"""Files on disk: what Transformers writes unmask reads, and the other way round; what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import unmask
from unmask import hub
from unmask.electra.checkpoint import hub_name
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import (
    ElectraForQuestionAnswering,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
)
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.errors import UserError

MODELS = [
    "ElectraForMaskedLM",
    "ElectraForPreTraining",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
]
HEADS = [*MODELS, "ElectraModel", "ElectraForMultipleChoice", "ElectraForQuestionAnswering"]
IDS = torch.tensor([[2, 7, 9, 30, 3]])

Saved = Callable[..., tuple[Any, Path]]


def first(model: Any) -> torch.Tensor:
    """The first thing that a model answers, whatever its name, also for one choice."""
    out = model(IDS[None] if "Choice" in type(model).__name__ else IDS)
    names = ("logits", "start_logits", "last_hidden_state")
    return next(getattr(out, name) for name in names if hasattr(out, name))


def edit(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(directory / hub.WEIGHTS)
    change(weights)
    save_file(weights, directory / hub.WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize("embedding_size", [8, 16])
@pytest.mark.parametrize("architecture", HEADS)
def test_there_and_back(architecture: str, embedding_size: int, saved: Saved, tmp_path: Path) -> None:
    theirs, directory = saved(architecture, embedding_size=embedding_size)
    ours = getattr(unmask, architecture).from_pretrained(directory)
    again = tmp_path / "again"
    ours.save_pretrained(again)
    before_files, after_files = load_file(directory / hub.WEIGHTS), load_file(again / hub.WEIGHTS)
    assert before_files.keys() == after_files.keys()
    assert all(torch.equal(before_files[name], after_files[name]) for name in before_files)
    loaded, report = getattr(transformers, architecture).from_pretrained(again, output_loading_info=True)
    assert not any(report.values()), report
    torch.testing.assert_close(first(loaded.eval()), first(theirs), atol=1e-6, rtol=0)
    torch.testing.assert_close(first(ours), first(theirs), atol=1e-4, rtol=0)
    before, after = theirs.config.to_dict(), loaded.config.to_dict()
    ignored = {"_name_or_path", "dtype", "architectures"}
    assert {k: v for k, v in before.items() if k not in ignored} == {
        k: v for k, v in after.items() if k not in ignored
    }
    assert after["architectures"] == [architecture]


@pytest.mark.parametrize("architecture", MODELS)
def test_a_new_model_loads_in_transformers(architecture: str, tmp_path: Path) -> None:
    config = ElectraConfig(
        vocab_size=40, num_hidden_layers=1, labels=("no", "yes", "perhaps"), classifier_dropout=0.3
    )
    ours = getattr(unmask, architecture)(config).eval()
    ours.save_pretrained(tmp_path)
    theirs, report = getattr(transformers, architecture).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.config.id2label == {0: "no", 1: "yes", 2: "perhaps"}
    assert theirs.config.classifier_dropout == 0.3
    torch.testing.assert_close(theirs.eval()(IDS).logits, ours(IDS).logits, atol=1e-5, rtol=0)
    assert getattr(unmask, architecture).from_pretrained(tmp_path).config == config


def test_a_new_span_finder_has_two_outputs(tmp_path: Path) -> None:
    config = ElectraConfig(vocab_size=40, num_hidden_layers=1, labels=("no", "yes", "perhaps"))
    ours = ElectraForQuestionAnswering(config).eval()
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.ElectraForQuestionAnswering.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values()), report
    torch.testing.assert_close(first(theirs.eval()), first(ours), atol=1e-5, rtol=0)


def test_every_parameter_has_a_name_on_the_hub() -> None:
    with pytest.raises(KeyError):
        hub_name("encoder.layers.0.queries.weight")
    with pytest.raises(KeyError):
        hub_name("head.weight")


def test_copies_and_buffers_are_accepted(saved: Saved, caplog: pytest.LogCaptureFixture) -> None:
    theirs, directory = saved("ElectraForMaskedLM")

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["generator_lm_head.weight"] = weights["electra.embeddings.word_embeddings.weight"].clone()
        weights["electra.embeddings.position_ids"] = torch.arange(20)[None]

    edit(directory, add)
    with caplog.at_level(logging.INFO):
        ours = ElectraForMaskedLM.from_pretrained(directory)
    assert not caplog.text
    assert ours.output_weight is ours.encoder.embeddings.token.weight
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, atol=1e-4, rtol=0)


def test_an_output_matrix_of_its_own_stays(saved: Saved, tmp_path: Path) -> None:
    theirs, directory = saved("ElectraForMaskedLM", tie_word_embeddings=False)
    ours = ElectraForMaskedLM.from_pretrained(directory)
    torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, atol=1e-4, rtol=0)
    ours.save_pretrained(tmp_path / "again")
    loaded, report = transformers.ElectraForMaskedLM.from_pretrained(
        tmp_path / "again", output_loading_info=True
    )
    assert not any(report.values()), report
    torch.testing.assert_close(loaded.eval()(IDS).logits, theirs(IDS).logits, atol=1e-6, rtol=0)


def test_a_bare_encoder_starts_a_classifier(saved: Saved, caplog: pytest.LogCaptureFixture) -> None:
    theirs, directory = saved("ElectraModel")
    ours = ElectraForTokenClassification.from_pretrained(directory)
    assert "token_head" in caplog.text
    hidden = ours.encode(ours.pack(IDS, None, None))
    torch.testing.assert_close(hidden, theirs(IDS)[0][0], atol=1e-4, rtol=0)


def test_a_discriminator_starts_a_classifier(saved: Saved, caplog: pytest.LogCaptureFixture) -> None:
    _, directory = saved("ElectraForPreTraining")
    discriminator = ElectraForPreTraining.from_pretrained(directory)
    with caplog.at_level(logging.INFO):
        ours = ElectraForSequenceClassification.from_pretrained(directory, labels=("a", "b", "c"))
    assert "sequence_head.dense.weight" in caplog.text
    assert "not used: discriminator_predictions.dense.bias" in caplog.text
    assert ours(IDS).logits.shape == (1, 3)
    assert ours.sequence_head.output.weight.std() > 0
    for one, other in zip(ours.encoder.parameters(), discriminator.encoder.parameters(), strict=True):
        assert torch.equal(one, other)


def test_missing_tensor_is_named(saved: Saved) -> None:
    _, directory = saved("ElectraForPreTraining")
    edit(directory, lambda weights: weights.pop("electra.encoder.layer.1.output.dense.bias"))
    with pytest.raises(
        UserError, match=r"lacks the tensor 'electra\.encoder\.layer\.1\.output\.dense\.bias'"
    ):
        ElectraForPreTraining.from_pretrained(directory)


def test_a_discriminator_is_no_generator(saved: Saved) -> None:
    _, directory = saved("ElectraForPreTraining")
    with pytest.raises(UserError, match="lacks the tensor 'generator_predictions"):
        ElectraForMaskedLM.from_pretrained(directory)
