"""Tasks and models small enough to be fine-tuned in a second."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import torch

from unmask.electra.config import ElectraConfig
from unmask.electra.model import ElectraForPreTraining
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.t5.config import T5Config
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.tokenizer import T5Tokenizer
from unmask.tasks.settings import FinetuneSettings
from unmask.tasks.task import Task

CPU = torch.device("cpu")
ANIMALS = ["cat", "dog", "cow", "hen", "fox"]
THINGS = ["cup", "pen", "hat", "key", "box"]
FAST = FinetuneSettings(epochs=6, batch_size=8, learning_rate=1e-2, layer_decay=1.0, precision="float32")


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """ "the cat is red": an animal or a thing?"""
    draw = random.Random(seed)
    return [
        (f"the {draw.choice(words)} is {draw.choice(['red', 'big', 'old'])}", label)
        for label, words in draw.choices([("animal", ANIMALS), ("thing", THINGS)], k=count)
    ]


def classification(directory: Path, *, validation: bool = True) -> Task:
    return _task(directory, "sorts", "classification", sentences(48, 0), sentences(16, 1), validation)


def echoes(directory: Path, name: str = "echo", prefix: str = "") -> Task:
    """The first word of a sentence and its last."""
    pairs = [
        (text, f"{text.split()[1]} {text.split()[-1]}") for seed in (0, 1) for text, _ in sentences(32, seed)
    ]
    task = _task(directory, name, "text-to-text", pairs[:48], pairs[48:], validation=True)
    return Task(
        name, task.kind, task.source, task.target, task.train, validation=task.validation, prefix=prefix
    )


def _task(
    directory: Path,
    name: str,
    kind: str,
    train: list[tuple[str, str]],
    held_out: list[tuple[str, str]],
    validation: bool,
) -> Task:
    directory.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("dev", held_out)):
        with (directory / f"{name}-{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    dev = directory / f"{name}-dev.csv"
    return Task(
        name,
        kind,
        ("text",),
        "label",
        directory / f"{name}-train.csv",
        validation=dev if validation else None,
        test=dev,
    )


def toml_of(task: Task, path: Path) -> Path:
    """The task as a file beside its data."""
    assert task.train is not None
    lines = [
        f'name = "{task.name}"',
        f'kind = "{task.kind}"',
        f'source = "{task.source[0]}"',
        f'target = "{task.target}"',
        f'train = "{task.train.name}"',
        f'prefix = "{task.prefix}"',
    ]
    if task.validation is not None:
        lines.append(f'validation = "{task.validation.name}"')
    path.write_text("\n".join(lines) + "\n")
    return path


def electra(directory: Path, *, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    tokenizer = ElectraTokenizer.train([text for text, _ in sentences(200, 2)], 125)
    config = ElectraConfig(
        vocab_size=tokenizer.vocab_size,
        embedding_size=16,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=24,
    )
    torch.manual_seed(seed)
    ElectraForPreTraining(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def t5(directory: Path, *, width: int = 32, seed: int = 0) -> Path:
    tokenizer = T5Tokenizer.train([text for text, _ in sentences(200, 2)], 360)
    config = T5Config(
        vocab_size=tokenizer.vocab_size, d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=4
    )
    torch.manual_seed(seed)
    T5ForConditionalGeneration(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
