"""Too many, too long, too slow, gone: every request gets its answer, and the others theirs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import socket
import threading
import types
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from unmask.errors import UserError
from unmask.serve import streaming
from unmask.serve.limits import Limits
from unmask.serve.worker import Worker

openai = pytest.importorskip("openai")

#: A result that takes some hundred steps: the end is forbidden.
LONG = {"model": "t5", "prompt": "on and on", "max_tokens": 400, "min_tokens": 400}
#: A beam search.
SEARCH = {"model": "t5", "prompt": "far", "max_tokens": 60, "min_tokens": 60, "num_beams": 4}


def test_a_client_that_goes_frees_its_place(server: Any, slowly: None) -> None:
    before = server.metric("unmask_cancelled_total")
    with server.http.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        assert server.metric("unmask_batch_rows") == 1
    server.wait(lambda: server.metric("unmask_batch_rows") == 0)
    assert server.metric("unmask_cancelled_total") == before + 1


def test_a_client_that_goes_without_a_stream(server: Any, slowly: None) -> None:
    before = server.metric("unmask_cancelled_total")
    with httpx.Client(base_url=server.url) as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json=LONG | {"n": 4, "temperature": 1}, timeout=0.3)
    server.wait(lambda: server.metric("unmask_cancelled_total") == before + 4)
    server.wait(lambda: server.metric("unmask_batch_rows") == 0)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("completions", SEARCH | {"max_tokens": 400, "min_tokens": 400}),
        ("fill", {"model": "pair", "input": " ___" * 16, "at_most": 3}),
        ("rounds", {"model": "pair", "input": "the cook", "max_tokens": 24, "rounds": 64, "judged": True}),
        ("explain", {"model": "t5", "input": "a meal", "target": "a good meal", "steps": 256}),
        ("explain", {"model": "t5", "input": "a meal", "max_tokens": 256}),
        ("explain", {"model": "pair", "input": "the cook", "steps": 256}),
    ],
)
def test_a_long_answer_that_nobody_waits_for_ends(
    server: Any, monkeypatch: pytest.MonkeyPatch, route: str, body: dict[str, Any]
) -> None:
    if route == "explain":
        pytest.importorskip("captum", reason="needs the extra explain")
    pauses, ended = threading.Semaphore(0), threading.Event()
    pause = Worker._pause

    def counted(worker: Worker, job: Any, part: Any = None) -> None:
        # The first step lasts until the client has gone.
        pauses.release()
        ended.wait(20)
        pause(worker, job, part)

    monkeypatch.setattr(Worker, "_pause", counted)
    cancelled, answered = (
        server.metric(name) for name in ("unmask_cancelled_total", "unmask_call_rows_count")
    )
    with httpx.Client(base_url=server.url) as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"/v1/{route}", json=body, timeout=0.3)
    server.wait(lambda: server.metric("unmask_cancelled_total") == cancelled + 1)
    ended.set()
    assert server.http.post("/v1/embeddings", json={"model": "pair", "input": "next"}).status_code == 200
    assert server.metric("unmask_call_rows_count") == answered + 1  # of the embedding alone
    assert pauses.acquire(timeout=0) and not pauses.acquire(timeout=0), "it ended in its first step"


def test_writing_goes_on_beside_a_beam_search(server: Any, slowly: None) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        search = pool.submit(server.http.post, "/v1/completions", json=SEARCH)
        server.client.completions.create(model="t5", prompt="quick", max_tokens=3)
        assert not search.done()
        assert search.result().status_code == 200


def test_overload_is_refused_and_passes(start: Any, slowly: None) -> None:
    with start(("t5",), Limits(queue=4, rows=2, inputs=4)) as server:

        async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
            body = {"model": "t5", "prompt": f"number {number}", "max_tokens": 20, "min_tokens": 20}
            return await client.post("/v1/completions", json=body)

        async def all_at_once() -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=60)
            async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
                return list(await asyncio.gather(*(ask(client, number) for number in range(60))))

        answers = asyncio.run(all_at_once())
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(refused) > 20 and all(answer.headers["retry-after"] == "1" for answer in refused)
        assert all(answer.status_code in (200, 503) for answer in answers)
        assert sum(answer.status_code == 200 for answer in answers) >= 4
        assert server.metric("unmask_refused_requests_total") == len(refused)
        # As if nothing had been.
        assert server.client.completions.create(model="t5", prompt="again", max_tokens=3).choices
        assert server.metric("unmask_queue_requests") == server.metric("unmask_batch_rows") == 0


def test_requests_that_are_too_many_are_not_read(start: Any, slowly: None) -> None:
    with start(("t5",), Limits(requests=2)) as server, contextlib.ExitStack() as open_streams:
        for _ in range(2):
            stream = server.http.stream("POST", "/v1/completions", json=LONG | {"stream": True})
            open_streams.enter_context(stream)
        server.wait(lambda: server.metric("unmask_batch_rows") == 2)
        for body in (b"{", json.dumps(LONG).encode()):
            refused = server.http.post("/v1/completions", content=body)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert "2 requests" in refused.json()["error"]["message"]
        assert server.http.get("/livez").status_code == 200
        open_streams.close()
        server.wait(lambda: server.http.get("/v1/models").status_code == 200)


def test_where_there_is_no_room_nothing_is_tokenised(
    start: Any, slowly: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(queue=1, rows=1, inputs=1)
    with start(("t5",), limits) as server, contextlib.ExitStack() as open_streams:
        for gauge in ("unmask_batch_rows", "unmask_queue_requests"):
            stream = server.http.stream("POST", "/v1/completions", json=LONG | {"stream": True})
            open_streams.enter_context(stream)
            server.wait(lambda gauge=gauge: server.metric(gauge) == 1)
        monkeypatch.setattr(server.app.state.service.models["t5"], "tokenizer", None)
        assert server.http.post("/v1/completions", json=LONG).status_code == 503
        open_streams.close()


def test_a_client_that_does_not_read_is_left(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left = list[str]()
    monkeypatch.setattr(streaming, "GRACE", 0.1)

    class Rememberer:
        def cancel(self, jobs: list[str]) -> None:
            left.extend(jobs)

    model = types.SimpleNamespace(name="m", worker=Rememberer())

    async def contents() -> AsyncGenerator[dict[str, Any]]:
        while True:
            yield {"text": "more"}

    async def send(message: Any) -> None:
        await asyncio.sleep(60)

    async def receive() -> Any:
        await asyncio.sleep(60)

    stream = streaming.EventStream(model, ["job"], contents(), 0.1)  # type: ignore[arg-type]
    asyncio.run(asyncio.wait_for(stream({"type": "http"}, receive, send), 30))
    assert left == ["job"]


def test_time_is_up(start: Any, slowly: None) -> None:
    with start(("t5",), Limits(seconds=0.3)) as server:
        late = server.http.post("/v1/completions", json=LONG)
        assert late.status_code == 504 and "time" in late.json()["error"]["message"]
        with server.http.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as answer:
            lines = [line for line in answer.iter_lines() if line]
        assert "the time for a request is up" in lines[-1]
        server.wait(lambda: server.metric("unmask_batch_rows") == 0)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, ""),
        (b"{", 400, ""),
        (b"\xff\xfe{}", 400, ""),
        (b"[" * 100_000, 400, ""),
        (b'{"model": "t5", "prompt": "\\ud800"}', 400, ""),
        (b'{"model": "\\ud800", "prompt": "a"}', 404, "ud800"),
        (b'{"model": "t5", "prompt": "a", "\\ud800": 1}', 400, ""),
        (b'{"model": "t5", "prompt": 1}', 400, "prompt"),
        (b'{"model": "t5", "prompt": []}', 400, "prompt"),
        (b'{"model": "t5", "prompt": "a", "temperature": NaN}', 400, "temperature"),
        (b'{"model": "t5", "prompt": "a", "max_tokens": 1' + b"0" * 400 + b"}", 400, "tokens"),
        (b'{"model": "t5", "prompt": "a", "max_tokens": 513}', 400, "at most 512 are written"),
        (b'{"model": "t5", "prompt": "a", "n": 2, "temperature": 0}', 400, "temperature"),
        (b'{"model": "t5", "prompt": "a", "n": 65, "temperature": 1}', 400, "at most 64"),
        (b'{"model": "t5", "prompt": "a", "num_beams": 2, "stream": true}', 400, "stream"),
        (b'{"model": "t5", "prompt": "a", "what": 2}', 400, "what"),
        (b'{"model": "t5", "prompt": "a", "logprobs": 2}', 400, "logprobs"),
        (b'{"model": "none", "prompt": "a"}', 404, "there are t5, pair, taste"),
        (b'{"model": "t5", "prompt": "' + b"x" * 3000 + b'"}', 400, "has 3001 tokens, at most 2048"),
        (b'{"model": "t5", "prompt": "' + b"x" * 300_000 + b'"}', 413, "300000 characters"),
        (b'{"model": "t5", "prompt": "' + b"x" * 1_100_000 + b'"}', 413, "larger than 1048576 bytes"),
    ],
)
def test_bad_bodies(server: Any, body: bytes, status: int, said: str) -> None:
    answer = server.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]


def test_surrogates_in_rows(server: Any) -> None:
    for body in (
        b'{"model": "taste", "input": {"text": "\\ud800"}}',
        b'{"model": "taste", "input": {"\\ud800": 1}}',
    ):
        answer = server.http.post("/v1/classify", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text


def test_a_body_without_end_is_cut_off(server: Any) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        with contextlib.suppress(ConnectionError):
            assert b" 413 " in connection.recv(4096)


def test_slow_bodies(start: Any) -> None:
    with start(("t5",), Limits(body_seconds=0.3)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            connection.settimeout(10)
            assert b" 408 " in connection.recv(4096)


def test_keys(start: Any) -> None:
    with start(("t5",), keys=["first", "second"]) as server:
        body = {"model": "t5", "prompt": "a", "max_tokens": 2}
        for header in ({}, {"authorization": "Bearer third"}, {"authorization": "first"}):
            assert server.http.post("/v1/completions", json=body, headers=header).status_code == 401
        with pytest.raises(openai.AuthenticationError):
            server.client.models.list()
        for key in ("first", "second"):
            client = server.client.with_options(api_key=key)
            assert client.completions.create(**body).choices
        assert server.http.get("/livez").status_code == 200


def test_other_sites_are_let_in_where_asked(start: Any, server: Any) -> None:
    origin = {"origin": "https://a.example"}
    assert "access-control-allow-origin" not in server.http.get("/v1/models", headers=origin).headers
    with start(("t5",), origins=["https://a.example"], keys=["k"]) as open_server:
        preflight = origin | {"access-control-request-method": "POST"}
        answer = open_server.http.options("/v1/completions", headers=preflight)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"


def test_request_ids_and_states(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="unmask.serve"):
        answer = server.http.get("/readyz", headers={"x-request-id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        bad = server.http.get("/livez", headers={"x-request-id": "no good\tid"})
        assert len(bad.headers["x-request-id"]) == 32
    logged = [record.fields for record in caplog.records]
    assert {"request": "mine-1", "route": "/readyz", "status": 200}.items() <= logged[0].items()
    assert server.http.get("/nothing").json()["error"]["message"] == "Not Found"
    assert server.http.get("/v1/completions").status_code == 405
    text = server.http.get("/metrics").text
    for name in ("queue_requests", "batch_rows", "written_tokens", "first_token_seconds", "request_seconds"):
        assert f"unmask_{name}" in text


def test_connections_without_a_request(server: Any) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.request(
        "POST", "/v1/completions", body=json.dumps({"model": "t5"}), headers={"content-length": "x"}
    )
    assert connection.getresponse().status == 400
    connection.close()


def test_limits_that_cannot_be() -> None:
    with pytest.raises(UserError, match="rows=0 must be above 0"):
        Limits(rows=0)
    with pytest.raises(UserError, match="inputs=64 can never be accepted with queue=10"):
        Limits(queue=10)
