"""Tiny runs for the command line: a corpus, recipes that learn it in a second, real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from unmask.cli import _run

FAMILIES = ("t5", "electra")
STEPS = 12

RECIPE = """
family = "{family}"
vocab_size = {vocab_size}
layers = 1
width = 16
heads = 2
feed_forward_width = 32
dropout = 0.1
length = 24
batch_size = 4
validation_share = 0.1
steps = {steps}
learning_rate = 1e-3
precision = "float32"
checkpoint_every = 2
evaluate_every = 6
log_every = 1
"""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 documents of three lines, of 40 words."""
    draw = random.Random(0)
    words = [first + second for first in "abcdefghij" for second in ("bak", "del", "fim", "gon")]
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(80):
            lines = [" ".join(draw.choice(words) for _ in range(10)) for _ in range(3)]
            file.write(json.dumps({"text": "\n".join(lines)}) + "\n")
    return path


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family → recipe file."""
    folder = tmp_path_factory.mktemp("recipes")
    for family, size in (("t5", 400), ("electra", 130)):
        text = RECIPE.format(family=family, vocab_size=size, steps=STEPS)
        (folder / f"{family}.toml").write_text(text)
    return {family: folder / f"{family}.toml" for family in FAMILIES}


@pytest.fixture(scope="session")
def models(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, recipes: dict[str, Path]
) -> dict[str, Path]:
    """Family → directory of a model that `unmask pretrain` has made."""
    made = {}
    for family in FAMILIES:
        run = tmp_path_factory.mktemp(family) / "run"
        flags = ["--steps", "2", "--checkpoint-every", "0", "--threads", "1"]
        assert _run(["pretrain", str(recipes[family]), "--data", str(corpus), "--out", str(run), *flags]) == 0
        made[family] = run / "model"
    return made


class Process:
    """`unmask …` in a process of its own, one thread, its output in pipes.

    `before` is Python that runs first.
    """

    def __init__(self, *arguments: object, before: str = "") -> None:
        # Not the entry point, which need not be on the path where tests run.
        command = [
            sys.executable,
            "-c",
            f"{before}\nfrom unmask.cli import main; main()",
            *map(str, arguments),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.popen = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # Tests that themselves run in a background where Ctrl-C is ignored must not hand that on.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    @property
    def is_running(self) -> bool:
        return self.popen.poll() is None

    def kill(self, number: int) -> None:
        self.popen.send_signal(number)

    def wait(self) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        out, error = self.popen.communicate(timeout=600)
        return self.popen.returncode, out, error


@pytest.fixture
def unmask() -> Callable[..., Process]:
    """unmask(arguments…): start the command line in a process."""
    return Process


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused(arguments…): run a command that must fail with exit code 2 and one line, and give the line."""

    def run(*arguments: Any) -> str:
        capsys.readouterr()
        code = _run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 2, captured
        assert "Traceback" not in captured.err
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: ")
        return lines[0]

    return run
