"""`unmask serve` as a process: SIGTERM loses nothing, mistakes get one line."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from unmask.cli import _run

pytest.importorskip("uvicorn", reason="needs the extra serve")


#: A server whose steps of writing take at least 10 ms, on any machine.
SLOWLY = """
import time
from unmask.cli import main
from unmask.generation.continuous import ContinuousBatch

step = ContinuousBatch.step
ContinuousBatch.step = lambda batch: time.sleep(0.01) or step(batch)
main()
"""


def test_sigterm_loses_no_accepted_request(directories: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SLOWLY, "serve", f"tiny={directories['t5']}"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--threads", "1", "--rows", "2"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_until_ready(client, process)

            def ask(number: int) -> httpx.Response:
                body = {"model": "tiny", "prompt": f"{number}", "max_tokens": 100, "min_tokens": 100}
                return client.post("/v1/completions", json=body)

            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                asked = [pool.submit(ask, number) for number in range(8)]
                until = time.monotonic() + 30
                # All are in: two are written, six wait.
                while 'queue_requests{model="tiny"} 6.0' not in client.get("/metrics").text:
                    assert time.monotonic() < until
                process.send_signal(signal.SIGTERM)
                answers = [one.result() for one in asked]
            assert [answer.status_code for answer in answers] == [200] * 8
            assert all(answer.json()["usage"]["completion_tokens"] == 100 for answer in answers)
            with pytest.raises(httpx.ConnectError):
                client.get("/livez")
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        _, errors = process.communicate()
    lines = [json.loads(line) for line in errors.splitlines()]
    assert sum(line.get("route") == "/v1/completions" and line["status"] == 200 for line in lines) == 8


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < until
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.ConnectError:
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nowhere/at/all"], "no model '/nowhere/at/all'"),
        (["a={t5}", "a={t5}"], "two models are called a"),
        (["{t5}", "--task", "other=sst2"], "give NAME=TASK with the name of a model: t5"),
        (["{t5}", "--rows", "0"], "rows=0 must be above 0"),
        (["{t5}", "--port", "70000"], "--port 70000"),
        (["{t5}", "--api-keys", "{t5}/absent"], "absent"),
    ],
)
def test_mistakes(
    directories: dict[str, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    given = [argument.format(t5=directories["t5"]) for argument in arguments]
    assert _run(["serve", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line


def test_a_port_that_is_taken(directories: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert _run(["serve", str(directories["t5"]), "--port", str(port)]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err
