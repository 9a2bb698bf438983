"""A pair's continuation with its passes, and gaps that a T5 fills token by token."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")


def test_rounds_show_what_was_open_and_sent_back(server: Any) -> None:
    asked = {"model": "pair", "input": "the cook ate", "max_tokens": 6, "rounds": 4, "revisions": 2}
    found = server.http.post("/v1/rounds", json=asked).json()
    opened = [one["open"] for one in found["rounds"]]
    assert opened[0] == [3, 4, 5, 6, 7, 8] and opened[-1] == []
    sizes = [len(places) for places in opened]
    # Fewer from round to round; then, twice, the worst quarter of six.
    assert sizes[:-3] == sorted(sizes[:-3], reverse=True) and sizes[-3:-1] == [2, 2]
    for one in found["rounds"]:
        assert [place for place, token in enumerate(one["tokens"]) if token == "[MASK]"] == one["open"]
    assert [one["sent_back"] for one in found["rounds"]] == [False] * (len(opened) - 3) + [True, True, False]
    judged = server.http.post("/v1/rounds", json=asked | {"judged": True, "revisions": 0}).json()["rounds"]
    assert [one["sent_back"] for one in judged] == [False, True, True, True, False]
    assert found["text"].startswith("the cook ate ")
    refused = server.http.post("/v1/rounds", json=asked | {"max_tokens": 100})
    assert refused.status_code == 400
    assert server.http.post("/v1/rounds", json=asked | {"model": "t5"}).status_code == 400


def events(server: Any, route: str, asked: dict[str, Any]) -> list[Any]:
    with server.http.stream("POST", f"/v1/{route}", json=asked | {"stream": True}) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_rounds_are_streamed_as_they_are_made(server: Any, slowly: None) -> None:
    asked = {"model": "pair", "input": "the cook ate", "max_tokens": 6, "rounds": 4, "judged": True}
    whole = server.http.post("/v1/rounds", json=asked).json()
    *rounds, last = events(server, "rounds", asked)
    assert rounds == whole["rounds"] and last == {"text": whole["text"]}
    # The first comes before the others are there: whoever has seen enough stops the rest.
    before = server.metric("unmask_cancelled_total")
    with server.http.stream("POST", "/v1/rounds", json=asked | {"rounds": 64, "stream": True}) as answer:
        first = json.loads(next(answer.iter_lines()).removeprefix("data: "))
    assert first == rounds[0]
    server.wait(lambda: server.metric("unmask_cancelled_total") == before + 1)


def test_gaps_are_streamed(server: Any, slowly: None) -> None:
    asked = {"model": "t5", "input": "a ___ ate the ___.", "max_tokens": 20}
    whole = server.http.post("/v1/fill", json=asked).json()["data"][0]["gaps"]
    found = [event["gaps"] for event in events(server, "fill", asked)]
    assert len(found) > 2 and all(len(gaps) == 2 for gaps in found) and found[-1] == whole
    refused = server.http.post("/v1/fill", json=asked | {"model": "pair", "stream": True})
    assert refused.status_code == 400 and "T5" in refused.json()["error"]["message"]
