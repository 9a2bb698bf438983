"""`unmask serve` under load, by OpenAI's client: throughput against one request at a time, latency, memory, results.

    python benchmarks/serve.py --shape small --alone 24 --requests 384
    python benchmarks/serve.py --shape tiny --alone 200 --requests 10000

A random T5 with ByT5's tokenizer (t5-small's layers and widths, or 2 layers of width 64) is served by a process of
its own. Requests have 1 to 200 bytes and ask for 4 to 64 tokens; at most --distinct of them are unlike, in an order
of chance, so that each comes again in other company. Every result is compared with what `T5Writer` writes offline.
Then ten times as many clients as the queue and the batch hold come at once. After each part: the latency's middle
and 99th percentile, and the server's memory, now and at most so far.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import torch

from unmask.t5.byte_tokenizer import ByT5Tokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import T5Writer

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
}
LIMITS = (4, 8, 16, 32, 64)
CLIENTS, ROWS, QUEUE = 64, 64, 64


@dataclass(frozen=True)
class Asked:
    text: str
    limit: int


@dataclass(frozen=True)
class Answered:
    """Seconds that a request took, and its text; None: refused with 503."""

    seconds: float
    text: str | None
    tokens: int = 0


def requests(count: int, distinct: int) -> list[Asked]:
    draw = random.Random(0)
    unlike = [
        Asked("".join(draw.choices("abcdefghijklmnop ", k=draw.randrange(1, 200))), draw.choice(LIMITS))
        for _ in range(min(count, distinct))
    ]
    asked = unlike * -(-count // len(unlike))
    draw.shuffle(asked)
    return asked[:count]


def make_model(shape: str, place: Path) -> None:
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=384, **SHAPES[shape]))
    with torch.no_grad():
        # Letters more often than other bytes, and an end now and then.
        model.embedding.weight[100:126] *= 1.5
        model.embedding.weight[1] *= 2
    model.save_pretrained(place)
    ByT5Tokenizer().save_pretrained(place)


async def ask(client: openai.AsyncOpenAI, one: Asked) -> Answered:
    began = time.perf_counter()
    try:
        found = await client.completions.create(
            model="t5", prompt=one.text, max_tokens=one.limit, temperature=0
        )
    except openai.InternalServerError as error:
        assert error.status_code == 503 and error.response.headers["retry-after"], error
        return Answered(time.perf_counter() - began, None)
    return Answered(
        time.perf_counter() - began,
        found.choices[0].text,
        found.usage.completion_tokens if found.usage else 0,
    )


async def load(url: str, asked: list[Asked], clients: int) -> tuple[list[Answered], float]:
    """All requests by so many clients, each of which waits for its answer; and the seconds of all."""
    limits = openai.DefaultAsyncHttpxClient(limits=httpx.Limits(max_connections=clients))
    answers: list[Answered | None] = [None] * len(asked)
    places = iter(range(len(asked)))
    async with openai.AsyncOpenAI(
        base_url=url, api_key="none", max_retries=0, timeout=600, http_client=limits
    ) as client:

        async def one_client() -> None:
            for place in places:
                answers[place] = await ask(client, asked[place])

        began = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(clients)))
        return [answer for answer in answers if answer is not None], time.perf_counter() - began


def offline(place: Path, asked: list[Asked]) -> list[str]:
    """What the library writes for each, found once for those that are alike."""
    unlike = list(dict.fromkeys(asked))
    texts = dict(zip(unlike, _written(place, unlike), strict=True))
    return [texts[one] for one in asked]


def _written(place: Path, asked: list[Asked]) -> list[str]:
    model, tokenizer = T5ForConditionalGeneration.from_pretrained(place), ByT5Tokenizer.from_pretrained(place)
    texts = [""] * len(asked)
    for limit in LIMITS:
        places = [number for number, one in enumerate(asked) if one.limit == limit]
        writer = T5Writer(model, tokenizer, max_new_tokens=limit)
        for number, found in zip(places, writer.write([asked[p].text for p in places]), strict=True):
            texts[number] = found[0].text
    return texts


def memory(process: subprocess.Popen[bytes]) -> str:
    """What a process holds, and has held at most, in MiB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    now, most = (
        int(next(line.split()[1] for line in lines if line.startswith(name))) / 1024
        for name in ("VmRSS", "VmHWM")
    )
    return f"memory {now:.0f} MiB, at most {most:.0f}"


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    while True:
        assert process.poll() is None, "the server ended"
        try:
            client.models.list()
            return
        except openai.APIConnectionError:
            time.sleep(0.2)


def report(name: str, answers: list[Answered], seconds: float) -> float:
    """Print a line; results a second."""
    times = np.array([answer.seconds for answer in answers]) * 1000
    tokens = sum(answer.tokens for answer in answers)
    print(
        f"{name:12s} {len(answers):6d} requests, {len(answers) / seconds:8.2f}/s, {tokens / seconds:8.0f} tokens/s, "
        f"p50 {np.percentile(times, 50):.0f} ms, p99 {np.percentile(times, 99):.0f} ms",
        flush=True,
    )
    return len(answers) / seconds


async def measure(url: str, place: Path, process: Any, asked: list[Asked], alone: int) -> None:
    print(f"{'at first':12s} {memory(process)}")
    await load(url, asked[:8], 1)
    one_by_one = report("one by one", *await load(url, asked[:alone], 1))
    print(f"{'':12s} {memory(process)}")
    answers, seconds = await load(url, asked, CLIENTS)
    together = report(f"{CLIENTS} clients", answers, seconds)
    print(f"{'':12s} ratio {together / one_by_one:.2f}, {memory(process)}")
    crowd = 10 * (ROWS + QUEUE)
    flood, seconds = await load(url, (asked * (crowd // len(asked) + 1))[:crowd], crowd)
    kinds = Counter("503" if answer.text is None else "200" for answer in flood)
    after = await load(url, asked[:1], 1)
    print(f"{crowd} at once: {dict(kinds)} in {seconds:.1f} s; then {after[0][0].seconds * 1000:.0f} ms")
    print(f"{'':12s} {memory(process)}", flush=True)
    expected = offline(place, asked)
    wrong = sum(answer.text != text for answer, text in zip(answers, expected, strict=True))
    print(f"{len(answers)} results ({len(set(asked))} unlike) beside offline decoding: {wrong} differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--requests", type=int, default=384)
    parser.add_argument("--distinct", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "t5"
        make_model(given.shape, place)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "unmask", "serve", str(place), "--port", str(port)]
        limits = ["--rows", str(ROWS), "--queue", str(QUEUE), "--inputs", str(QUEUE), "--seconds", "600"]
        with Path(folder, "log").open("w") as log:
            process = subprocess.Popen(
                [*command, *limits, "--threads", str(given.threads)],
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": str(given.threads)},
            )
            url = f"http://127.0.0.1:{port}/v1"
            try:
                wait_until_ready(url, process)
                asyncio.run(
                    measure(url, place, process, requests(given.requests, given.distinct), given.alone)
                )
            finally:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
