"""Fine-tuning end to end: what is kept, what is continued, what LoRA writes, what other libraries make of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tuning
from small_tasks import task_of
from tuning import CPU, FAST

from unmask import hub
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError
from unmask.report.card import CARD
from unmask.tasks.adapters import merge_adapter
from unmask.tasks.evaluation import HeldOut
from unmask.tasks.finetuning import finetune
from unmask.tasks.learning import Outcome
from unmask.tasks.models import load_for_prediction
from unmask.tasks.settings import FinetuneSettings
from unmask.training.metrics import read_metrics


@pytest.mark.parametrize(
    ("family", "width", "rows", "expected"),
    [
        ("t5", 512, 10_000, ("adafactor", 1e-3, 1.0, "constant", 0.0, 3.0)),
        ("t5", 512, 2_000, ("adafactor", 1e-3, 1.0, "constant", 0.0, 10.0)),
        ("t5", 128, 2_000, ("adafactor", 3e-2, 1.0, "constant", 0.0, 10.0)),
        ("t5", 384, 2_000, ("adafactor", 1e-2, 1.0, "constant", 0.0, 10.0)),
        ("electra", 128, 10_000, ("adamw", 3e-3, 1.0, "linear", 0.1, 3.0)),
        ("electra", 256, 10_000, ("adamw", 3e-4, 0.8, "linear", 0.1, 3.0)),
        ("electra", 768, 10_000, ("adamw", 1e-4, 0.8, "linear", 0.1, 3.0)),
        ("electra", 1024, 2_490, ("adamw", 5e-5, 0.9, "linear", 0.1, 10.0)),
    ],
)
def test_defaults(family: str, width: int, rows: int, expected: tuple[Any, ...]) -> None:
    full = FinetuneSettings().with_defaults(family, width, rows)
    found = (
        full.optimiser,
        full.learning_rate,
        full.layer_decay,
        full.schedule,
        full.warmup_share,
        full.epochs,
    )
    assert found == expected
    assert full.weight_decay == 0
    given = FinetuneSettings(learning_rate=0.5, epochs=1, optimiser="scaled-adamw")
    full = given.with_defaults("t5", 512, 10)
    assert (full.learning_rate, full.epochs, full.schedule, full.warmup_share) == (0.5, 1, "linear", 0.1)


def test_a_narrow_t5s_rate_is_for_steps_that_are_relative_to_its_weights() -> None:
    rates = {
        optimiser: FinetuneSettings(optimiser=optimiser).with_defaults("t5", 128, 10).learning_rate
        for optimiser in ("adafactor", "scaled-adamw", "adamw", "muon")
    }
    assert rates == {"adafactor": 3e-2, "scaled-adamw": 3e-2, "adamw": 1e-3, "muon": 1e-3}
    lora = FinetuneSettings(lora_rank=4)
    assert lora.with_defaults("t5", 128, 10).learning_rate == 1e-3
    assert lora.with_defaults("electra", 256, 10).learning_rate == 1e-3


def test_the_best_weights_are_the_model(tmp_path: Path) -> None:
    task, base = tuning.classification(tmp_path), tuning.electra(tmp_path / "base")
    model = finetune(task, str(base), tmp_path / "run", FAST, device=CPU)
    outcome = Outcome.read(tmp_path / "run")
    scores = {
        line["step"]: line["accuracy"]
        for line in read_metrics(tmp_path / "run" / "metrics.jsonl")
        if line["kind"] == "evaluation"
    }
    assert next(iter(scores)) == 6, "after the first epoch"
    assert outcome.score == scores[outcome.step] == max(scores.values())
    assert not outcome.has_failed
    found = HeldOut.read(task, "validation").model(load_for_prediction(task, model, device=CPU))
    assert found.scores["accuracy"] == outcome.score
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "metrics.jsonl",
        "model",
        "outcome.json",
        "run.json",
    ]


def test_the_card_says_what_the_run_knows(tmp_path: Path) -> None:
    task, base = tuning.classification(tmp_path), tuning.electra(tmp_path / "base")
    model = finetune(task, str(base), tmp_path / "run", FAST, device=CPU)
    outcome = Outcome.read(tmp_path / "run")
    card = (model / CARD).read_text()
    for fact in (
        f"| task | {task.name} |",
        f"| validation {outcome.metric} | {outcome.score:.4f} |",
        f"({outcome.step:,} of {outcome.steps:,} steps)",
        f"| learning rate | {FAST.learning_rate} |",
        f"from `{tmp_path.name}/base`",
        "their score flatters",
    ):
        assert fact in card
    assert str(tmp_path) not in card, "where files lie is nobody's business"


def test_stopped_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import unmask.training.loop as loop

    task, base = tuning.classification(tmp_path), tuning.electra(tmp_path / "base")
    settings = replace(FAST, lora_rank=2, lora_targets=("all",), checkpoint_every=4)
    whole = finetune(task, str(base), tmp_path / "whole", settings, device=CPU)
    real, made = loop._step, list[int]()

    def step(*arguments: Any) -> Any:
        if len(made) == 14:
            raise RuntimeError("killed")
        made.append(1)
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_step", step)
        with pytest.raises(RuntimeError, match="killed"):
            finetune(task, str(base), tmp_path / "run", settings, device=CPU)
    part = finetune(task, str(base), tmp_path / "run", settings, device=CPU)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()


def test_a_failed_run_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task, base = tuning.classification(tmp_path), tuning.electra(tmp_path / "base")
    caplog.set_level(logging.WARNING, "unmask")
    hopeless = replace(FAST, learning_rate=1e-9, patience=2)
    finetune(task, str(base), tmp_path / "run", hopeless, device=CPU)
    assert Outcome.read(tmp_path / "run").has_failed
    assert "has failed: accuracy" in caplog.text
    # Of six epochs, the first and two without a better score.
    scored = [one for one in read_metrics(tmp_path / "run" / "metrics.jsonl") if one["kind"] == "evaluation"]
    assert [one["step"] for one in scored] == [6, 12, 18]


def test_without_validation_rows_the_last_weights_are_kept(tmp_path: Path) -> None:
    task, base = tuning.classification(tmp_path, validation=False), tuning.electra(tmp_path / "base")
    finetune(task, str(base), tmp_path / "run", replace(FAST, epochs=1), device=CPU)
    outcome = Outcome.read(tmp_path / "run")
    assert (outcome.score, outcome.step, outcome.steps) == (None, 6, 6)


@pytest.mark.parametrize("family", ["t5", "electra"])
def test_lora(family: str, tmp_path: Path) -> None:
    base = getattr(tuning, family)(tmp_path / "base")
    task = tuning.classification(tmp_path) if family == "electra" else tuning.echoes(tmp_path)
    settings = replace(FAST, lora_rank=4, lora_targets=("all",), learning_rate=2e-2, epochs=3)
    model = finetune(task, str(base), tmp_path / "run", settings, device=CPU)
    assert not (model / hub.WEIGHTS).exists()
    held_out = HeldOut.read(task, "validation")
    found = held_out.model(load_for_prediction(task, model, device=CPU)).scores[task.metrics[0]]
    assert found == pytest.approx(Outcome.read(tmp_path / "run").score)
    merge_adapter(model, tmp_path / "merged")
    assert (tmp_path / "merged" / hub.WEIGHTS).is_file()
    plain = load_for_prediction(task, tmp_path / "merged", device=CPU)
    assert held_out.model(plain).scores[task.metrics[0]] == pytest.approx(found)


def test_a_writer_is_trained_whole(tmp_path: Path) -> None:
    from unmask.electra.config import ElectraConfig
    from unmask.electra.pair import ElectraPair

    base = tuning.electra(tmp_path / "base")
    config = ElectraConfig.from_hub(hub.read_json(base / hub.CONFIG))
    ElectraPair.fresh(config, config).save_pretrained(tmp_path / "pair")
    ElectraTokenizer.from_pretrained(base).save_pretrained(tmp_path / "pair")
    with pytest.raises(UserError, match="is trained whole: leave --lora-rank out"):
        finetune(
            tuning.echoes(tmp_path),
            str(tmp_path / "pair"),
            tmp_path / "run",
            replace(FAST, lora_rank=2),
            device=CPU,
        )


def test_transformers_gives_the_same_answers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    task, base = tuning.classification(tmp_path), tuning.electra(tmp_path / "base")
    model = finetune(task, str(base), tmp_path / "run", replace(FAST, epochs=3), device=CPU)
    held_out = HeldOut.read(task, "validation")
    ours = held_out.model(load_for_prediction(task, model, device=CPU))
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    texts = [row.sources[0] for row in held_out.rows]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        numbers = reference(**batch).logits.argmax(-1).tolist()
    theirs = held_out.score([reference.config.id2label[number] for number in numbers])
    assert theirs.predictions == ours.predictions
    assert theirs.scores == ours.scores


def test_transformers_writes_the_same_texts(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    task, base = tuning.echoes(tmp_path), tuning.t5(tmp_path / "base")
    model = finetune(task, str(base), tmp_path / "run", replace(FAST, epochs=4), device=CPU)
    held_out = HeldOut.read(task, "validation")
    ours = held_out.model(load_for_prediction(task, model, device=CPU))
    reference = transformers.AutoModelForSeq2SeqLM.from_pretrained(model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    texts = [task.text(row.sources) for row in held_out.rows]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    written = reference.generate(**batch, max_new_tokens=task.max_target_length, num_beams=1)
    theirs = held_out.score(tokenizer.batch_decode(written, skip_special_tokens=True))
    assert theirs.predictions == ours.predictions
    assert theirs.scores == ours.scores


def test_class_weights_and_label_smoothing(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    from unmask.tasks.finetuning import emphasise
    from unmask.tasks.models import load_for_training
    from unmask.tasks.rows import read_rows

    task, base = tuning.classification(tmp_path), tuning.electra(tmp_path / "base")
    rows = read_rows(task, "train")
    rows = [row for row in rows if row.target == "animal"][:9] + [
        row for row in rows if row.target == "thing"
    ][:3]
    learner: Any = load_for_training(task, str(base), rows, fresh_weights=False, device=CPU)
    settings = FinetuneSettings(class_weights="balanced", label_smoothing=0.1)
    emphasise(learner, rows, settings)
    weights = torch.tensor([12 / (2 * 9), 12 / (2 * 3)])
    torch.testing.assert_close(learner.class_weights, weights)
    batch = learner.examples(rows).fetch(np.arange(12))
    logits = learner.outputs(rows)
    expected = torch.nn.functional.cross_entropy(
        logits, torch.tensor([0] * 9 + [1] * 3), weights, label_smoothing=0.1
    )
    with torch.no_grad():
        found = learner.loss(batch, 0, batch).total
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    # Of a tagger, each word's.
    tags = task_of("tagging", tmp_path)
    rows = read_rows(tags, "train")
    tagger: Any = load_for_training(tags, str(tiny_models["electra"]), rows, fresh_weights=False, device=CPU)
    emphasise(tagger, rows, settings)
    assert tagger.labels == ("B-location", "B-person", "O")
    torch.testing.assert_close(tagger.class_weights, torch.tensor([24 / (3 * n) for n in (3, 6, 15)]))
    batch = tagger.examples(rows).fetch(np.arange(len(rows)))
    with torch.no_grad():
        tagger.model.eval()
        found, one = tagger.loss(batch, 0, batch).total, tagger.decisions(batch)
    expected = torch.nn.functional.cross_entropy(
        one.logits, one.targets, tagger.class_weights, label_smoothing=0.1
    )
    torch.testing.assert_close(found, expected)
    t5: Any = load_for_training(task, str(tuning.t5(tmp_path / "t5")), rows, fresh_weights=False, device=CPU)
    with pytest.raises(UserError, match="class_weights are for an ELECTRA's labels"):
        emphasise(t5, rows, settings)
