"""Served models: what each can do, and how it is loaded."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from unmask import hub
from unmask.electra.heads import ElectraModel
from unmask.electra.model import ElectraForMaskedLM, ElectraForPreTraining
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.electra.writer import ElectraForConditionalGeneration
from unmask.errors import UserError
from unmask.generation.continuous import ContinuousBatch
from unmask.generation.settings import GenerationSettings
from unmask.serve import electra_answers, explaining, t5_answers
from unmask.serve.jobs import Pause
from unmask.serve.limits import Limits
from unmask.serve.metrics import Metrics
from unmask.serve.worker import ModelThread, Worker
from unmask.t5 import continuous
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.model import T5ForConditionalGeneration
from unmask.t5.writing import check_vocabulary
from unmask.tasks.answering import ElectraAnswerModel
from unmask.tasks.kinds.kind import Prediction, Row
from unmask.tasks.library import find_task
from unmask.tasks.models import TaskModel, family_of, load_for_prediction
from unmask.tasks.t5 import T5TaskModel
from unmask.tasks.task import Task

#: Kind of a task → the route that asks it.
ROUTES = {
    "classification": "classify",
    "pair-classification": "classify",
    "regression": "classify",
    "tagging": "tag",
    "question-answering": "answer",
    "multiple-choice": "answer",
    "text-to-text": "answer",
}
#: Answers to as many items.
Function = Callable[[list[Any]], list[Any]]
#: An answer to an item, in many steps.
LongFunction = Callable[[Pause, Any], Any]
#: What is no ability by itself but a way of one.
_INNER = {"search", "alternatives"}


class ServedModel:
    """A model and what it can do.

    Attributes:
        name: what requests call it.
        family: "t5" or "electra".
        tokenizer: its own.
        longest: tokens that it can read; None: any number.
        functions: ability → items to answers, which are found together.
        long: ability → an item to its answer, in steps between which others have their turn. "write", and of a T5
            "fill", are in neither but written token by token.
        t5: the model, where it is one.
        task, learner: what it has learnt, and the model in that form.
        worker: set by `open`.
    """

    def __init__(self, name: str, family: str, tokenizer: Any, longest: int | None = None) -> None:
        self.name, self.family, self.tokenizer, self.longest = name, family, tokenizer, longest
        self.created = int(time.time())
        self.functions: dict[str, Function] = {}
        self.long: dict[str, LongFunction] = {}
        self.t5: T5ForConditionalGeneration | None = None
        self.task: Task | None = None
        self.learner: TaskModel | None = None
        self.worker: Worker

    @property
    def can(self) -> list[str]:
        written = ["write", "fill"] if self.t5 is not None else []
        return sorted({*self.functions, *self.long, *written} - _INNER)

    def open(self, limits: Limits, metrics: Metrics, thread: ModelThread) -> Worker:
        """Give it its place in the thread."""
        start = None if self.t5 is None else partial(continuous.start, self.t5)
        self.worker = Worker(self.name, limits, metrics, thread, start)
        return self.worker


def load(name: str, place: str, task: str | None, device: torch.device) -> ServedModel:
    """Load a model with everything that it can do.

    Args:
        task: of a fine-tuned model: its file, or the name of one that is built in.

    Raises:
        UserError: no such model, weights that are no safetensors, a task that its family cannot do.
    """
    directory = hub.find_model(place)
    check_weights(directory)
    family = family_of(directory)
    if family not in ("t5", "electra"):
        raise UserError(f"{directory} is of the family {family}: only t5 and electra are served")
    learnt = None if task is None else find_task(task, None)
    if learnt is not None and learnt.kind not in ROUTES:
        raise UserError(f"task {learnt.name!r} is {learnt.kind}: only {', '.join(ROUTES)} are served")
    made = _t5 if family == "t5" else _electra
    served = made(name, directory, device, learnt)
    _warm_up(served)
    return served


@torch.inference_mode()
def _warm_up(served: ServedModel) -> None:
    """Have compiled and laid out, before the door opens, what the first request would wait for."""
    ids = served.tokenizer.encode("a")
    for ability, item in (("embed", ids), ("detect", ids), ("score", (ids, ids))):
        if ability in served.functions:
            served.functions[ability]([item])
    if served.t5 is None:
        return
    batch = ContinuousBatch()
    for number in range(2):
        plan = continuous.plan_of(served.t5, [], GenerationSettings(min_new_tokens=2), limit=2)
        batch.admit(partial(continuous.start, served.t5, [ids]), [(number, plan)])
        batch.step()


def check_weights(directory: Path) -> None:
    """Raises:
    UserError: weights that are not safetensors of the directory itself: a server opens no pickle, and follows no
        adapter to its base.
    """
    if hub.is_adapter(directory):
        raise UserError(f"{directory} is an adapter: write it as a model first, by unmask convert")
    parts = [part for part in (directory / GENERATOR, directory / DISCRIMINATOR) if part.is_dir()]
    for part in parts or [directory]:
        if not (part / hub.WEIGHTS).is_file() and not (part / hub.WEIGHTS_INDEX).is_file():
            raise UserError(
                f"{part} has no {hub.WEIGHTS}: weights in other files are not opened by a server; write them anew "
                "by from_pretrained and save_pretrained"
            )


def _t5(name: str, directory: Path, device: torch.device, task: Task | None) -> ServedModel:
    tokenizer = load_tokenizer(directory)
    served = ServedModel(name, "t5", tokenizer)
    if task is None:
        model = T5ForConditionalGeneration.from_pretrained(directory, device=device)
    else:
        served.task, served.learner = task, load_for_prediction(task, directory, device=device)
        assert isinstance(served.learner, T5TaskModel)
        model = served.learner.model
        served.functions[ROUTES[task.kind]] = partial(_predict, served)
    check_vocabulary(model, tokenizer)
    served.t5 = model.eval().requires_grad_(False)
    served.functions |= {
        "embed": partial(t5_answers.embed, model),
        "score": partial(t5_answers.score, model),
    }
    served.long["search"] = partial(t5_answers.search, model, tokenizer)
    if _explains(model):
        served.long["explain"] = partial(explaining.of_t5, model, tokenizer)
    return served


def _electra(name: str, directory: Path, device: torch.device, task: Task | None) -> ServedModel:
    tokenizer = ElectraTokenizer.from_pretrained(directory)
    served = ServedModel(name, "electra", tokenizer)
    if task is not None:
        served.task, served.learner = task, load_for_prediction(task, directory, device=device)
        model: Any = served.learner.model.eval().requires_grad_(False)
        if isinstance(served.learner, ElectraAnswerModel):
            served.long[ROUTES[task.kind]] = partial(_answer, served.learner)
        else:
            served.functions[ROUTES[task.kind]] = partial(_predict, served)
        if explaining.explains(model) and _explains(model):
            served.long["explain"] = partial(explaining.of_electra, model, tokenizer)
        return served
    inner = directory / DISCRIMINATOR
    encoder = ElectraModel.from_pretrained(inner if inner.is_dir() else directory, device=device).eval()
    served.longest = encoder.config.max_position_embeddings
    served.functions["embed"] = partial(electra_answers.embed, encoder)
    discriminator: ElectraForPreTraining | None = None
    generator: ElectraForMaskedLM | None = None
    architectures = hub.read_json(
        (
            directory / GENERATOR
            if (directory / GENERATOR).is_dir()
            else inner
            if inner.is_dir()
            else directory
        )
        / hub.CONFIG
    ).get("architectures") or [""]
    if (directory / GENERATOR).is_dir() or architectures[0] == ElectraForMaskedLM.architecture:
        pair = ElectraForConditionalGeneration.from_pretrained(directory, device=device)
        generator, discriminator = pair.generator, pair.discriminator
        served.functions["alternatives"] = partial(electra_answers.alternatives, pair)
        served.long["fill"] = partial(electra_answers.fill, pair)
        if pair.answer_length is None:
            served.long["rounds"] = partial(electra_answers.write_rounds, pair)
    elif inner.is_dir() or architectures[0] == ElectraForPreTraining.architecture:
        place = inner if inner.is_dir() else directory
        discriminator = ElectraForPreTraining.from_pretrained(place, device=device).eval()
    if discriminator is not None:
        served.functions["detect"] = partial(electra_answers.detect, discriminator, tokenizer)
    explained: Any = discriminator or generator
    if explained is not None and _explains(explained):
        explained.requires_grad_(False)
        served.long["explain"] = partial(explaining.of_electra, explained, tokenizer)
    return served


def _explains(model: torch.nn.Module) -> bool:
    """Whether it can be explained: the extra is there, the weights are float32 on a CPU."""
    weight = next(model.parameters())
    found = importlib.util.find_spec("captum") is not None
    return found and weight.dtype == torch.float32 and weight.device.type == "cpu"


def _predict(served: ServedModel, rows: Sequence[Any]) -> list[Prediction]:
    assert served.learner is not None
    return list(served.learner.predict(rows))


def _answer(learner: ElectraAnswerModel, pause: Pause, row: Row) -> Prediction:
    return Prediction(learner.answer([row], watch=lambda *_: pause())[0])
