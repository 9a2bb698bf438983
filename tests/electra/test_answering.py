"""Windows over long contexts, and answers put together from them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from unmask.electra.answering import Answer, Window, answer, windows
from unmask.electra.config import ElectraConfig
from unmask.electra.heads import ElectraForQuestionAnswering
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import UserError

WORDS = [f"w{number:02d}" for number in range(60)]
QUESTION = "w01 w02 w03"
CONTEXT = "  ".join(WORDS[5:45])  # two spaces: a token's place is not its number


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ElectraTokenizer:
    folder = tmp_path_factory.mktemp("words")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *WORDS]) + "\n")
    return ElectraTokenizer.from_pretrained(folder)


@pytest.fixture
def model() -> ElectraForQuestionAnswering:
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=65,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    return ElectraForQuestionAnswering(config).eval()


def test_windows_by_hand(tokenizer: ElectraTokenizer) -> None:
    cut = windows(tokenizer, "w01 w02", "w10 w11 w12 w13 w14 w15 w16", max_length=9, stride=3)
    assert [window.ids for window in cut] == [
        [2, 6, 7, 3, 15, 16, 17, 18, 3],
        [2, 6, 7, 3, 18, 19, 20, 21, 3],
    ]
    assert cut[1].types == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert (cut[1].first, cut[1].offsets) == (4, [(12, 15), (16, 19), (20, 23), (24, 27)])
    # w13 ends the first window and begins the second: no context on one side in both, so the first has it.
    assert [window.best for window in cut] == [[True] * 4, [False, True, True, True]]
    # w12 to w14 is whole in neither; w14 to w15 is in the second.
    assert [window.target(8, 19) for window in cut] == [(0, 0), (0, 0)]
    assert [window.target(16, 23) for window in cut] == [(0, 0), (5, 6)]
    assert cut[0].target(5, 6) == (5, 5)  # inside a token: that token


def test_a_long_question_is_cut_and_a_short_context_is_one_window(tokenizer: ElectraTokenizer) -> None:
    (window,) = windows(tokenizer, " ".join(WORDS), "w10", max_length=20, stride=2, max_question=4)
    assert window.ids == [2, 5, 6, 7, 8, 3, 15, 3]
    assert all(window.best)
    (empty,) = windows(tokenizer, "w01", "", max_length=20, stride=2)
    assert empty.ids == [2, 6, 3, 3]


@pytest.mark.parametrize("stride", [1, 7, 30])
def test_every_token_is_best_in_exactly_one_window(tokenizer: ElectraTokenizer, stride: int) -> None:
    cut = windows(tokenizer, QUESTION, CONTEXT, max_length=36, stride=stride)
    counted = [
        offset for window in cut for offset, best in zip(window.offsets, window.best, strict=True) if best
    ]
    assert sorted(counted) == [(5 * place, 5 * place + 3) for place in range(40)]
    assert all(len(window.ids) <= 36 for window in cut)


def brute_force(
    model: ElectraForQuestionAnswering, context: str, cut: list[Window], longest: int
) -> tuple[dict[tuple[int, int], float], float]:
    """Every span's score and the null score, from the padded interface, one window at a time."""
    scores: dict[tuple[int, int], float] = {}
    nulls = []
    for window in cut:
        out = model(torch.tensor([window.ids]), token_type_ids=torch.tensor([window.types]))
        start, end = out.start_logits[0], out.end_logits[0]
        nulls.append((start[0] + end[0]).item())
        for a in range(len(window.offsets)):
            for b in range(a, min(a + longest, len(window.offsets))):
                if window.best[a]:
                    key = (window.offsets[a][0], window.offsets[b][1])
                    score = (start[window.first + a] + end[window.first + b]).item()
                    scores[key] = max(score, scores.get(key, -1e9))
    return scores, min(nulls)


@pytest.mark.parametrize("max_length", [64, 20])
def test_answers_are_the_best_spans(
    max_length: int, model: ElectraForQuestionAnswering, tokenizer: ElectraTokenizer
) -> None:
    contexts = [CONTEXT, " ".join(WORDS[30:33])]
    found = answer(
        model,
        tokenizer,
        [QUESTION, "w07"],
        contexts,
        max_length=max_length,
        stride=5,
        n_best=50,
        max_answer=6,
    )
    for question, context, answers in zip([QUESTION, "w07"], contexts, found, strict=True):
        cut = windows(tokenizer, question, context, max_length=max_length, stride=5)
        assert len(cut) == (1 if context != CONTEXT or max_length == 64 else 7)
        scores, _ = brute_force(model, context, cut, 6)
        wanted = sorted(scores.items(), key=lambda item: -item[1])[:50]
        assert [(a.start, a.end) for a in answers] == [span for span, _ in wanted]
        for a, (_, score) in zip(answers, wanted, strict=True):
            assert a.score == pytest.approx(score, abs=1e-4)
            assert a.text == context[a.start : a.end]
        assert sum(a.probability for a in answers) == pytest.approx(1)


def test_no_answer(model: ElectraForQuestionAnswering, tokenizer: ElectraTokenizer) -> None:
    cut = windows(tokenizer, QUESTION, CONTEXT, max_length=20, stride=5)
    scores, null = brute_force(model, CONTEXT, cut, 30)
    best = max(scores.values())

    def first(threshold: float | None) -> Answer:
        asked = answer(
            model, tokenizer, [QUESTION], [CONTEXT], max_length=20, stride=5, null_threshold=threshold
        )
        return asked[0][0]

    assert first(null - best - 0.01).text == ""
    assert first(null - best - 0.01).score == pytest.approx(null, abs=1e-4)
    assert first(null - best + 0.01).text
    assert first(None).text
    # Nothing to choose from: no answer, whatever is asked.
    assert answer(model, tokenizer, [QUESTION], [""])[0][0].text == ""


def test_mistakes_are_named(model: ElectraForQuestionAnswering, tokenizer: ElectraTokenizer) -> None:
    with pytest.raises(UserError, match="max_length=5 leaves no room beside 3 tokens"):
        windows(tokenizer, QUESTION, CONTEXT, max_length=5, stride=1)
    with pytest.raises(UserError, match="stride=15 must be from 1 to 14"):
        windows(tokenizer, QUESTION, CONTEXT, max_length=20, stride=15)
    with pytest.raises(UserError, match="2 questions but 1 contexts"):
        answer(model, tokenizer, ["w01", "w02"], ["w03"])
    with pytest.raises(UserError, match="n_best=0"):
        answer(model, tokenizer, ["w01"], ["w03"], n_best=0)
    with pytest.raises(UserError, match="surrogate"):
        windows(tokenizer, "\ud800", "w03")


def test_real_answers_are_found_again(shared_data: Path) -> None:
    """The characters of a marked answer lie in the span that training is given, in three scripts."""
    tokenizer = ElectraTokenizer.from_pretrained(shared_data / "vocab" / "bert-uncased")
    checked = 0
    for path in sorted((shared_data / "tasks" / "xquad").glob("*.dev.json.gz")):
        for article in json.loads(gzip.decompress(path.read_bytes()))["data"][:4]:
            for paragraph in article["paragraphs"][:2]:
                for asked in paragraph["qas"][:3]:
                    (marked, *_) = asked["answers"]
                    start, end = marked["answer_start"], marked["answer_start"] + len(marked["text"])
                    cut = windows(
                        tokenizer, asked["question"], paragraph["context"], max_length=160, stride=32
                    )
                    places = [(window, *window.target(start, end)) for window in cut]
                    spans = [
                        (window.offsets[a - window.first][0], window.offsets[b - window.first][1])
                        for window, a, b in places
                        if a > 0
                    ]
                    assert spans
                    # A token may reach beyond the answer, never fall short of it.
                    assert all(a <= start and b >= end and end - start + 12 >= b - a for a, b in spans)
                    checked += 1
    assert checked > 30
