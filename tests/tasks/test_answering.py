"""A text-to-text task for ELECTRA: what is trained on, and that it learns to answer, with lengths of its own."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import electra_config

from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import ElectraPair
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.tasks.answering import ElectraAnswerModel
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.kinds import Row
from unmask.tasks.models import load_for_prediction
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task
from unmask.training.metrics import read_metrics

CPU = torch.device("cpu")
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
WORDS = ["bak", "del", "fim", "gon"]
#: "bak three" is answered by "bak bak bak".
PAIRS = [(f"{word} {name}", " ".join([word] * count)) for word in WORDS for name, count in NUMBERS.items()]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    tokenizer = ElectraTokenizer.train([" ".join(part) for part in PAIRS] * 10, 124)
    none = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    config = electra_config(tokenizer.vocab_size, width=32, layers=2, max_position_embeddings=24, **none)
    torch.manual_seed(0)
    ElectraPair.fresh(config, config).save_pretrained(tmp_path / "pair")
    tokenizer.save_pretrained(tmp_path / "pair")
    return tmp_path / "pair"


@pytest.fixture
def task(tmp_path: Path) -> Task:
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *PAIRS])
    path = tmp_path / "train.csv"
    return Task("repeat", "text-to-text", ("source",), "target", path, test=path)


def rows() -> list[Row]:
    return [Row(number, (source,), (target,)) for number, (source, target) in enumerate(PAIRS, start=1)]


def test_what_is_trained_on(task: Task, pair: Path) -> None:
    learner = ElectraAnswerModel.for_training(task, pair, rows(), fresh_weights=False, seed=0, device=CPU)
    generator, discriminator = learner.model.generator, learner.model.discriminator
    assert discriminator is not None
    assert generator.encoder.embeddings is discriminator.encoder.embeddings, "shared halves stay shared"
    tokenizer, places = learner.tokenizer, learner.model.answer_length
    longest = max(len(tokenizer.encode(target, add_special_tokens=False)) for _, target in PAIRS)
    assert places == longest + 1
    source = learner.examples(rows())
    plan = source.plan(np.random.default_rng(0))
    assert plan.asked.sum() == len(PAIRS) / 8
    ids = tokenizer.encode(PAIRS[5][0])
    answer = tokenizer.encode(PAIRS[5][1], add_special_tokens=False)
    end = [tokenizer.sep_token_id]
    for asked, behind in ((False, answer + end), (True, answer + end * (places - len(answer)))):
        plan.asked[[5, 0]] = [asked, not asked]
        fetched = plan.fetch(np.array([5, 0]))
        assert fetched["lengths"].tolist() == plan.lengths(np.array([5, 0])).tolist()
        batch = source.finish(fetched, np.random.default_rng(1), 0)
        first = int(batch["lengths"][0])
        assert batch["tokens"][:first].tolist() == ids + behind
        assert batch["token_types"][:first].tolist() == [0] * len(ids) + [1] * len(behind)
        masked = set(batch["drawn"].tolist())
        assert masked <= set(batch["answers"].tolist())
        noised = range(len(ids), len(ids) + len(answer))
        of_first = {place for place in masked if place < first}
        wanted = range(len(ids), first) if asked else noised
        assert [place for place in batch["answers"] if place < first] == list(wanted)
        if asked:
            assert of_first == set(wanted), "the length is learnt while all is masked"
        changed = np.flatnonzero(batch["masked"] != batch["tokens"])
        assert changed.tolist() == batch["drawn"].tolist() == sorted(masked)
        assert (batch["masked"][changed] == tokenizer.mask_token_id).all()
        weights = dict(zip(batch["drawn"].tolist(), batch["weights"].tolist(), strict=True))
        level = len(wanted) / len(of_first)
        assert all(weights[place] == pytest.approx(level) for place in of_first)


def test_each_epoch_asks_for_the_length_of_others(task: Task, pair: Path) -> None:
    many = [*rows(), Row(17, ("bak",), ("",))]
    learner = ElectraAnswerModel.for_training(task, pair, many, fresh_weights=False, seed=0, device=CPU)
    source = learner.examples(many)
    plans = [source.plan(np.random.default_rng(seed)) for seed in range(4)]
    assert len({tuple(plan.asked) for plan in plans}) > 1
    assert all(plan.asked[16] for plan in plans), "an empty answer has nothing else to teach"


def test_it_learns_to_answer(task: Task, pair: Path, tmp_path: Path) -> None:
    settings = FinetuneSettings(epochs=150, batch_size=16, learning_rate=5e-3)
    model = finetune(task, str(pair), tmp_path / "run", settings, device=CPU)
    learner = load_for_prediction(task, model, device=CPU)
    scores = HeldOut.read(task, "test").model(learner).scores
    assert scores["exact_match"] > 0.8
    log = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["replaced_rate"]]
    # Once the generator makes no mistakes there are none to find: the measure is a judge that calls nothing replaced.
    gains = [
        line["discriminator_accuracy"] - (1 - line["replaced_rate"])
        for line in log
        if line["replaced_rate"] < 0.5
    ]
    assert max(gains) > 0.05, "the discriminator finds what the generator gets wrong"


def test_a_generator_alone(task: Task, pair: Path, tmp_path: Path) -> None:
    settings = FinetuneSettings(epochs=2, batch_size=8)
    alone = tmp_path / "alone"
    ElectraForMaskedLM.from_pretrained(pair / "generator").save_pretrained(alone)
    ElectraTokenizer.from_pretrained(pair).save_pretrained(alone)
    model = finetune(task, str(alone), tmp_path / "run", settings, device=CPU)
    assert not (model / "discriminator").exists()
    assert len(load_for_prediction(task, model, device=CPU).predict([Row(1, ("bak one",), ())])) == 1


def test_fresh_weights(task: Task, pair: Path) -> None:
    torch.manual_seed(1)
    learner = ElectraAnswerModel.for_training(task, pair, rows(), fresh_weights=True, seed=0, device=CPU)
    given = ElectraForPreTraining.from_pretrained(pair / "discriminator")
    assert learner.model.discriminator is not None
    for name, weight in given.state_dict().items():
        if weight.ndim == 2:
            assert not torch.equal(weight, learner.model.discriminator.state_dict()[name])


def test_room(task: Task, pair: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = [Row(1, ("bak " * 40,), ("bak",)), Row(2, ("bak",), ("bak " * 8,))]
    learner = ElectraAnswerModel.for_training(task, pair, long, fresh_weights=False, seed=0, device=CPU)
    caplog.set_level(logging.WARNING, "unmask")
    learner.examples(long)
    assert "1 of 2 sources are cut to" in caplog.text
    with pytest.raises(UserError, match="do not fit into 24 positions beside a source"):
        ElectraAnswerModel.for_training(
            task, pair, [Row(1, ("bak",), ("bak " * 40,))], fresh_weights=False, seed=0, device=CPU
        )


def test_models_that_cannot(task: Task, pair: Path) -> None:
    alone = pair / "discriminator"
    with pytest.raises(UserError, match="has no generator"):
        ElectraAnswerModel.for_training(task, alone, rows(), fresh_weights=False, seed=0, device=CPU)
    with pytest.raises(UserError, match="has not learnt to answer: fine-tune it on task 'repeat'"):
        ElectraAnswerModel.for_prediction(task, pair, device=CPU)
