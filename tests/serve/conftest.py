"""Tiny random models of both families, and a server in this process that serves them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from tiny import save_electra

from unmask.electra.heads import ElectraForSequenceClassification
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.generation.continuous import ContinuousBatch
from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra serve")
openai = pytest.importorskip("openai")

from unmask.serve.app import make_app  # noqa: E402
from unmask.serve.limits import Limits  # noqa: E402
from unmask.serve.models import load  # noqa: E402
from unmask.serve.worker import Worker  # noqa: E402

WORDS = ["the", "cook", "ate", "a", "meal", ".", "good", "bad"]
LENGTH = {"max_position_embeddings": 32}
TASKS = {
    "taste": 'name = "taste"\nkind = "classification"\nsource = "text"\ntarget = "label"\n',
    "same": 'name = "same"\nkind = "pair-classification"\nsource = ["first", "second"]\ntarget = "label"\n',
}


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        url: of it.
        app: the application.
        client: OpenAI's, which tries once.
        http: a plain one.
    """

    url: str
    app: Any
    client: Any
    http: httpx.Client

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))

    def wait(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Wait until something is so."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "it did not happen in time"
            time.sleep(0.01)


def save_t5(place: Path) -> Path:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, initializer_factor=2.0
    )
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        # Letters more than other bytes, the end now and then.
        model.embedding.weight[100:126] *= 1.5
        model.embedding.weight[1] *= 3
    model.save_pretrained(place)
    ByT5Tokenizer(extra_ids=20).save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → model directory: a T5, an ELECTRA pair, a classifier of texts and one of two texts."""
    home = tmp_path_factory.mktemp("served")
    save_electra(home / "pair" / "generator", ElectraForMaskedLM, WORDS, **LENGTH)
    save_electra(home / "pair" / "discriminator", ElectraForPreTraining, WORDS, **LENGTH)
    for name, labels in (("taste", ("bad", "good")), ("same", ("no", "yes"))):
        save_electra(home / name, ElectraForSequenceClassification, WORDS, labels=labels, **LENGTH)
    for name, task in TASKS.items():
        (home / f"{name}.toml").write_text(task, encoding="utf-8")
    save_t5(home / "t5")
    return {name: home / name for name in ("t5", "pair", *TASKS)}


@pytest.fixture(scope="session")
def start(directories: dict[str, Path]) -> Callable[..., Any]:
    """start(names, limits, tasks, **options of make_app): a context with a server; tasks: name → file."""

    @contextlib.contextmanager
    def run(
        names: tuple[str, ...],
        limits: Limits | None = None,
        tasks: dict[str, str] | None = None,
        **options: Any,
    ) -> Iterator[Server]:
        tasks = {name: str(directories[name].with_suffix(".toml")) for name in TASKS} | (tasks or {})
        models = [load(name, str(directories[name]), tasks.get(name), torch.device("cpu")) for name in names]
        app = make_app(models, limits or Limits(), **options)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
        with httpx.Client(base_url=url, timeout=60) as http:
            made = Server(url, app, client, http)
            made.wait(lambda: server.started)
            try:
                yield made
            finally:
                client.close()
                server.should_exit = True
                thread.join(30)
                assert not thread.is_alive()

    return run


@pytest.fixture(scope="session")
def server(start: Callable[..., Any]) -> Iterator[Server]:
    """All models, the usual limits."""
    with start(("t5", "pair", "taste")) as made:
        yield made


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of writing, or of an answer in many steps, takes at least 10 ms, on any machine."""

    def slower(kind: type, name: str) -> None:
        method = getattr(kind, name)

        def slow(*arguments: Any) -> Any:
            time.sleep(0.01)
            return method(*arguments)

        monkeypatch.setattr(kind, name, slow)

    slower(ContinuousBatch, "step")
    slower(Worker, "_pause")


@pytest.fixture(scope="session")
def reference(directories: dict[str, Path]) -> Callable[..., str]:
    """reference(text, prefix="", **options) → what the library writes for a text alone."""
    from unmask.t5.writing import T5Writer

    model = T5ForConditionalGeneration.from_pretrained(directories["t5"])
    tokenizer = ByT5Tokenizer.from_pretrained(directories["t5"])

    def write(text: str, prefix: str = "", **options: Any) -> str:
        return T5Writer(model, tokenizer, decoder_prefix=prefix, **options).write([text])[0][0].text

    return write


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium (Debian's: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def open_page(browser: Any) -> Callable[[Server], Any]:
    """open_page(server): a context with its page in English, which may call nothing but the server, and no script of
    which may fail."""

    @contextlib.contextmanager
    def opened(server: Server) -> Iterator[Any]:
        context = browser.new_context(
            locale="en-GB", reduced_motion="reduce", viewport={"width": 1000, "height": 900}
        )
        made = context.new_page()
        made.set_default_timeout(60_000)
        problems: list[str] = []
        made.on("pageerror", lambda problem: problems.append(str(problem)))
        made.on(
            "request",
            lambda asked: (
                problems.append(asked.url) if not asked.url.startswith((server.url, "data:")) else None
            ),
        )
        made.on(
            "console", lambda line: problems.append(line.text) if "Content Security" in line.text else None
        )
        made.goto(server.url)
        made.wait_for_selector("[role=tab]")
        yield made
        context.close()
        assert not problems

    return opened


@pytest.fixture
def page(open_page: Callable[[Server], Any], server: Server) -> Iterator[Any]:
    with open_page(server) as made:
        yield made
