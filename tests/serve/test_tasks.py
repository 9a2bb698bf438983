"""The routes that no other service has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unmask.electra.filling import read_filled, read_text
from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.t5.filling import fill_gaps
from unmask.t5.model import T5ForConditionalGeneration


def post(server: Any, route: str, **body: Any) -> Any:
    answer = server.http.post(f"/v1/{route}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def t5(directories: dict[str, Path]) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration.from_pretrained(directories["t5"])


@pytest.fixture(scope="module")
def pair(directories: dict[str, Path]) -> ElectraForConditionalGeneration:
    return ElectraForConditionalGeneration.from_pretrained(directories["pair"])


def test_t5_fills_gaps(server: Any, t5: T5ForConditionalGeneration) -> None:
    texts = ["a ___ b", "the ___ of ___ is short"]
    found = post(server, "fill", model="t5", input=texts, max_tokens=20)["data"]
    for one, text in zip(found, texts, strict=True):
        assert one["gaps"] == fill_gaps(t5, ByT5Tokenizer(20), text, max_new_tokens=20)
        assert one["text"].startswith(text[: text.index("___")])


def test_electra_fills_gaps(server: Any, pair: ElectraForConditionalGeneration) -> None:
    texts = ["the cook ate a ___ .", "the ___ ate"]
    found = post(server, "fill", model="pair", input=texts, at_most=2)["data"]
    for one, text in zip(found, texts, strict=True):
        reading, words = read_filled(pair, text, at_least=1, at_most=2)
        assert one["gaps"] == words and one["tokens"] == reading.tokens
        assert one["suspicion"] == pytest.approx(reading.suspicion, abs=1e-6)


def test_alternatives(server: Any, pair: ElectraForConditionalGeneration) -> None:
    one = post(server, "fill", model="pair", input="the ___ ate", at_most=1, alternatives=3)["data"][0]
    reading = read_text(pair, pair.tokenizer, "the ___ ate", proposals=3)
    (expected,) = reading.proposals.values()
    assert [
        (some["token"], pytest.approx(some["probability"])) for some in one["alternatives"][0]
    ] == expected
    assert one["gaps"] == [expected[0][0]] and one["text"] == f"the {expected[0][0]} ate"


def test_detection_together_is_as_alone(server: Any, pair: ElectraForConditionalGeneration) -> None:
    texts = ["the cook ate", "bad", "the good meal ate a bad cook ."]
    found = post(server, "detect", model="pair", input=texts)["data"]
    for one, text in zip(found, texts, strict=True):
        reading = read_text(pair, pair.tokenizer, text)
        assert one["tokens"] == reading.tokens
        # Bit by bit: unpadded batches of row-exact products.
        assert one["suspicion"] == post(server, "detect", model="pair", input=text)["data"][0]["suspicion"]
        assert one["suspicion"] == pytest.approx(reading.suspicion, abs=1e-6)


def test_scores(server: Any, t5: T5ForConditionalGeneration) -> None:
    pairs = [{"source": "ab", "target": "x"}, {"source": "a longer one", "target": "yes"}]
    found = post(server, "score", model="t5", input=pairs)["data"]
    tokenizer = ByT5Tokenizer(20)
    for one, asked in zip(found, pairs, strict=True):
        ids = torch.tensor([tokenizer.encode(asked["source"])])
        expected = float(t5.score(ids, [tokenizer.encode(asked["target"])])[0])
        assert one["log_likelihood"] == pytest.approx(expected, abs=1e-4)
        assert len(one["token_log_likelihoods"]) == len(asked["target"]) + 1
        assert one["tokens"][-1] == "</s>"


def test_classes(server: Any) -> None:
    found = post(server, "classify", model="taste", input=["good meal", {"text": "bad"}])["data"]
    assert [set(one) for one in found] == [{"prediction", "confidence"}] * 2
    assert all(one["prediction"] in ("good", "bad") and one["confidence"] >= 0.5 for one in found)


def test_a_written_task(start: Any, directories: dict[str, Path], tmp_path: Path) -> None:
    task = 'name = "echo"\nkind = "text-to-text"\nsource = "word"\ntarget = "target"\nmax_target_length = 9\n'
    (tmp_path / "echo.toml").write_text(task)
    with start(("t5",), tasks={"t5": str(tmp_path / "echo.toml")}) as server:
        found = post(server, "answer", model="t5", input=["cat", {"word": "dog"}])["data"]
        model = server.app.state.service.models["t5"]
        rows = [model.task.its_kind.row(model.task, 1, {"word": word}, "") for word in ("cat", "dog")]
        assert [one["prediction"] for one in found] == [one.text for one in model.learner.predict(rows)]


def test_why_a_t5_writes(server: Any) -> None:
    pytest.importorskip("captum", reason="needs the extra explain")
    found = post(server, "explain", model="t5", input="abc", target="xy", steps=8)
    assert len(found["source"]) == 4 and len(found["target"]) == 3 and len(found["prefix"]) == 3
    for place in range(3):
        sums = sum(found["source_shares"][place]) + sum(found["prefix_shares"][place])
        difference = found["log_probabilities"][place] - found["baselines"][place]
        assert sums == pytest.approx(difference + found["deltas"][place], abs=1e-4)
        assert sum(found["cross_attention"][place]) == pytest.approx(1, abs=1e-5)


def test_why_electra_judges(server: Any) -> None:
    pytest.importorskip("captum", reason="needs the extra explain")
    found = post(server, "explain", model="pair", input="the cook ate", place=2, steps=8)
    assert found["place"] == 2 and len(found["shares"]) == len(found["tokens"]) == 5
    label = post(server, "explain", model="taste", input="good meal", target="bad", steps=8)
    assert label["label"] == "bad" and set(label["logits"]) == {"good", "bad"}


def test_why_two_texts_get_a_label(start: Any, directories: dict[str, Path]) -> None:
    pytest.importorskip("captum", reason="needs the extra explain")
    row = {"first": "the cook ate", "second": "a meal"}
    with start(("same",)) as server:
        found = post(server, "explain", model="same", input=row, steps=8)
        answer = post(server, "classify", model="same", input=row)["data"][0]
        unlike = server.http.post("/v1/explain", json={"model": "same", "input": "the cook"})
    assert unlike.status_code == 400 and "first, second" in unlike.json()["error"]["message"]
    assert found["tokens"] == ["[CLS]", "the", "cook", "ate", "[SEP]", "a", "meal", "[SEP]"]
    assert found["label"] == answer["prediction"]
    model = ElectraForSequenceClassification.from_pretrained(directories["same"])
    read = ElectraTokenizer.from_pretrained(directories["same"])("the cook ate", "a meal")
    with torch.no_grad():
        types = torch.tensor([read["token_type_ids"]])
        logits = model(torch.tensor([read["input_ids"]]), token_type_ids=types).logits[0]
    # As the two segments that the model has learnt to read.
    assert list(found["logits"].values()) == pytest.approx(logits.tolist(), abs=1e-5)
    difference = found["output"] - found["baseline"]
    assert sum(found["shares"]) == pytest.approx(difference + found["delta"], abs=1e-4)


def test_why_a_t5_chooses_a_label(start: Any, tmp_path: Path) -> None:
    pytest.importorskip("captum", reason="needs the extra explain")
    task = tmp_path / "same.toml"
    task.write_text(
        'name = "same"\nkind = "pair-classification"\nsource = ["first", "second"]\ntarget = "label"\n'
        '[label_words]\nno = "not so"\nyes = "so"\n'
    )
    with start(("t5",), tasks={"t5": str(task)}) as server:
        row = {"first": "a", "second": "b"}
        found = post(server, "explain", model="t5", input=row, target="no", steps=2)
        model = server.app.state.service.models["t5"]
        (read,) = model.learner.sources([model.task.its_kind.row(model.task, 1, row, "")])
    assert found["text"] == "not so" and len(found["source"]) == len(read) > 3


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("fill", {"model": "t5", "input": "no gap"}, "no gap"),
        ("fill", {"model": "pair", "input": "a [MASK] and ___"}, "mark gaps with ___"),
        ("fill", {"model": "taste", "input": "a ___"}, "taste cannot fill: t5, pair can"),
        ("detect", {"model": "t5", "input": "a"}, "t5 cannot detect: pair can"),
        ("detect", {"model": "pair", "input": "cook " * 40}, "has 42 tokens, at most 32"),
        ("classify", {"model": "taste", "input": {"words": "x"}}, "input 1 has no 'text'"),
        ("classify", {"model": "taste", "input": {"text": ["x"]}}, "holds list"),
        ("classify", {"model": "pair", "input": "x"}, "pair cannot classify: taste can"),
        ("explain", {"model": "pair", "input": "the cook", "place": 9}, "place 9 is none"),
        ("explain", {"model": "pair", "input": "the cook", "target": "good"}, "only a classifier's label"),
        ("explain", {"model": "taste", "input": "the cook", "target": "x"}, "is no label of the model"),
        ("explain", {"model": "t5", "input": " "}, "input is empty"),
        ("explain", {"model": "t5", "input": "a" * 300}, "input has 301 tokens, at most 256"),
        ("explain", {"model": "t5", "input": {"text": "a"}}, "t5 has learnt no task"),
        ("explain", {"model": "taste", "input": {"words": "a"}}, "input 1 has no 'text'"),
    ],
)
def test_what_cannot_be_done_is_said(server: Any, route: str, body: dict[str, Any], said: str) -> None:
    answer = server.http.post(f"/v1/{route}", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
