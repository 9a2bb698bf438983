"""OpenAI's own client, unchanged."""

from __future__ import annotations

import concurrent.futures
import random
from collections.abc import Callable
from typing import Any

import pytest

openai = pytest.importorskip("openai")

Reference = Callable[..., str]


def test_a_completion_is_what_the_library_writes(server: Any, reference: Reference) -> None:
    answer = server.client.completions.create(model="t5", prompt="hello", max_tokens=20, temperature=0)
    assert answer.choices[0].text == reference("hello", max_new_tokens=20)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens == 6
    assert answer.model == "t5" and answer.id.startswith("cmpl-")


def test_several_prompts_and_results(server: Any, reference: Reference) -> None:
    answer = server.client.completions.create(
        model="t5", prompt=["one", "two words"], n=2, max_tokens=12, temperature=0.9, seed=5
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    expected = [
        reference(text, max_new_tokens=12, do_sample=True, temperature=0.9, seed=5 + number)
        for number, text in enumerate(["one", "one", "two words", "two words"])
    ]
    assert [choice.text for choice in answer.choices] == expected
    assert answer.usage.prompt_tokens == 4 + 10


def test_a_stream_says_the_same(server: Any, slowly: None, reference: Reference) -> None:
    stream = server.client.completions.create(
        model="t5", prompt="stream me", max_tokens=30, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert len(pieces) > 3
    assert "".join(pieces) == reference("stream me", max_new_tokens=30)
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert 1 < chunks[-1].usage.completion_tokens <= 30


def test_beam_search(server: Any, reference: Reference) -> None:
    answer = server.client.completions.create(
        model="t5", prompt="look far", max_tokens=10, extra_body={"num_beams": 3}
    )
    assert answer.choices[0].text == reference("look far", max_new_tokens=10, num_beams=3)


def test_chat_is_one_prompt_for_the_encoder(server: Any, reference: Reference) -> None:
    messages = [{"role": "system", "content": "Translate."}, {"role": "user", "content": "hello"}]
    answer = server.client.chat.completions.create(
        model="t5", messages=messages, max_completion_tokens=15, extra_body={"decoder_prefix": "ab"}
    )
    expected = reference("Translate.\nhello", prefix="ab", max_new_tokens=15)
    assert expected.startswith("ab")
    assert answer.choices[0].message.content == expected
    stream = server.client.chat.completions.create(
        model="t5", messages=messages, max_tokens=15, stream=True, extra_body={"decoder_prefix": "ab"}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected


def test_a_longer_conversation_names_its_turns(server: Any, reference: Reference) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "bye"},
    ]
    answer = server.client.chat.completions.create(model="t5", messages=messages, max_tokens=9)
    assert answer.choices[0].message.content == reference(
        "user: hi\nassistant: yes?\nuser: bye", max_new_tokens=9
    )


@pytest.mark.parametrize("stream", [False, True])
def test_stops(server: Any, reference: Reference, stream: bool) -> None:
    whole = reference("cut it", max_new_tokens=30)
    stop = whole[5:7]
    answer = server.client.completions.create(
        model="t5", prompt="cut it", max_tokens=30, stop=[stop, "never there"], stream=stream
    )
    if stream:
        chunks = list(answer)
        text, finish = "".join(c.choices[0].text for c in chunks), chunks[-1].choices[0].finish_reason
    else:
        text, finish = answer.choices[0].text, answer.choices[0].finish_reason
    assert text == whole[: whole.index(stop)] and finish == "stop"


@pytest.mark.parametrize("model", ["t5", "pair"])
def test_embeddings(server: Any, model: str) -> None:
    texts = ["the cook ate", "a meal", "the cook ate a good meal ."]
    together = server.client.embeddings.create(model=model, input=texts)
    assert [row.index for row in together.data] == [0, 1, 2]
    for row, text in zip(together.data, texts, strict=True):
        alone = server.client.embeddings.create(model=model, input=text, encoding_format="float")
        assert sum(x * x for x in row.embedding) == pytest.approx(1, abs=1e-5)
        # As float32 in base64 the client's default comes back to the last bit.
        assert row.embedding == pytest.approx(alone.data[0].embedding, abs=1e-7)


def test_models(server: Any) -> None:
    found = {model.id: model for model in server.client.models.list()}
    assert set(found) == {"t5", "pair", "taste"}
    assert {"write", "embed", "fill", "score"} <= set(found["t5"].can)
    assert server.client.models.retrieve("pair").family == "electra"
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        server.client.models.retrieve("other")


def test_everything_at_once_is_as_alone(server: Any, reference: Reference) -> None:
    draw = random.Random(3)
    wanted = []
    for number in range(60):
        text = "".join(draw.choice("abcdefgh ") for _ in range(draw.randrange(1, 60)))
        options: dict[str, Any] = {"max_tokens": draw.randrange(1, 40)}
        if number % 3 == 0:
            options |= {"temperature": 0.8, "seed": number, "top_p": 0.9}
        wanted.append((text, options, number % 4 == 0))

    def ask(one: tuple[str, dict[str, Any], bool]) -> str:
        text, options, stream = one
        answer = server.client.completions.create(model="t5", prompt=text, stream=stream, **options)
        return "".join(c.choices[0].text for c in answer) if stream else answer.choices[0].text

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, wanted))
    for (text, options, _), result in zip(wanted, found, strict=True):
        given = {"max_new_tokens": options.pop("max_tokens")} | options
        assert result == reference(text, do_sample="seed" in options, **given), text
    # They were written together.
    assert server.metric("unmask_step_rows_sum") / server.metric("unmask_step_rows_count") > 1.5
