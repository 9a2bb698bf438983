"""A fine-tuned model's answers as the lesson of a smaller one of its family.

- ELECTRA's heads: soft labels. loss = share · T² · KL(softmax(teacher / T) ‖ softmax(student / T)) + (1 − share) ·
  cross-entropy with the true label (Hinton et al. 2015, arXiv 1503.02531, section 2), the mean over all that a head
  decides: the label of a text or of a word, one of a row's choices, an answer's first and last token in a window. For
  numbers the two squared errors.
- T5: sequence-level distillation: the student learns to write what the teacher's beam search writes for the training
  sources (Kim and Rush 2016, arXiv 1606.07947, section 3.2).

What the teacher says is kept in the run's directory, and is asked once.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unmask import hub
from unmask.data.finetuning import Taught
from unmask.errors import UserError
from unmask.t5.writing import T5Writer
from unmask.tasks.bulk import Bulk
from unmask.tasks.card import about_task
from unmask.tasks.finetuning import as_claim, emphasise
from unmask.tasks.generation import LineWriter
from unmask.tasks.heads.head import ABSENT, ElectraTaskModel
from unmask.tasks.heads.sequence import RegressionModel
from unmask.tasks.kinds.kind import Row
from unmask.tasks.learning import Lesson, learn, shape_of
from unmask.tasks.models import TaskModel, load_for_prediction, load_for_training
from unmask.tasks.rows import read_rows
from unmask.tasks.settings import DistilSettings, FinetuneSettings
from unmask.tasks.t5 import T5TaskModel
from unmask.tasks.task import Task
from unmask.tasks.texts import GivenTexts
from unmask.tasks.validation import Validation
from unmask.training.batches import task_loss
from unmask.training.loop import Batch, Loss, step_seed
from unmask.training.runs import MODEL, claim_run

logger = logging.getLogger("unmask")

#: What the teacher wrote, a JSON object a source; and what its head gave.
TEXTS, OUTPUTS = "teacher.jsonl", "teacher.safetensors"


def distil(
    task: Task,
    teacher: str,
    student: str,
    directory: Path,
    settings: FinetuneSettings,
    distilling: DistilSettings,
    *,
    device: torch.device,
) -> Path:
    """Train a student on a task's training rows and on what its teacher says about them; writes `directory/model`.

    A stopped run is continued, the teacher's part too.

    Args:
        teacher: a fine-tuned model of the task.
        student: the model that learns, of the same family.

    Returns:
        The student's directory; at once if it is already there.

    Raises:
        UserError: models of two families, a teacher with other labels, a kind of task whose answers cannot be handed
            on, or as for `finetune`.
    """
    families = [shape_of(model)[0] for model in (teacher, student)]
    if families[0] != families[1]:
        raise UserError(
            f"{teacher} is a {families[0]} and {student} a {families[1]}: a student is of its teacher's family"
        )
    destination = directory / MODEL
    claim_run(
        directory,
        {
            "task": as_claim(task),
            "teacher": str(teacher),
            "student": str(student),
            "settings": as_claim(settings),
            "distilling": as_claim(distilling),
        },
    )
    if destination.is_dir():
        logger.warning("%s is finished: its model is in %s", directory, destination)
        return destination
    rows = read_rows(task, "train")
    master = load_for_prediction(task, teacher, device=device)
    torch.manual_seed(step_seed(settings.seed, "initialisation", 0))
    learner = load_for_training(task, student, rows, fresh_weights=False, device=device, seed=settings.seed)
    lesson = Lesson(
        learner,
        None,
        len(rows),
        f"distilling {task.name}",
        task.metrics[0],
        Validation.of(task, learner, settings),
        [("teacher", Path(teacher).name), *about_task(task, len(rows))],
    )
    if isinstance(master, T5TaskModel):
        emphasise(learner, rows, settings)
        answers = _written(master, rows, directory, distilling.num_beams)
        lesson = dataclasses.replace(
            lesson,
            sources=learner.examples([_answered(row, text) for row, text in zip(rows, answers, strict=True)]),
        )
    else:
        if settings.label_smoothing or settings.class_weights != "none":
            raise UserError("soft labels are smooth already: leave label_smoothing and class_weights out")
        lesson = _soft_lesson(lesson, master, rows, directory, distilling)
    learn(lesson, student, directory, settings)
    return destination


def _answered(row: Row, answer: str) -> Row:
    return dataclasses.replace(row, references=(answer,))


# -- T5 ----------------------------------------------------------------------------------------------------


def _written(master: T5TaskModel, rows: Sequence[Row], directory: Path, beams: int) -> list[str]:
    """What the teacher answers to each row: of text the best of its beam, of a set of answers the likeliest."""
    task = master.task
    if task.its_kind.closed or task.its_kind.candidates(task, rows[0], master.labels) is not None:
        return [prediction.text for prediction in master.predict(rows)]
    sources = [task.its_kind.source_text(task, row) for row in rows]
    asked = list(dict.fromkeys(sources))
    path = directory / TEXTS
    if not path.is_file():
        writer = T5Writer(
            master.model,
            master.tokenizer,
            max_source_length=task.max_source_length,
            max_new_tokens=task.max_target_length,
            num_beams=beams,
        )
        answer = LineWriter(writer, "jsonl", constrained=False)
        Bulk(answer=answer, settings={"beams": beams}, label="the teacher writes").to_file(
            GivenTexts(asked), path
        )
    written = [
        json.loads(line)["results"][0]["text"] for line in path.read_text(encoding="utf-8").splitlines()
    ]
    found = dict(zip(asked, written, strict=True))
    answers = [
        task.its_kind.answer(task, row, found[source], master.labels)
        for row, source in zip(rows, sources, strict=True)
    ]
    # Nothing can be learnt from an empty answer: there the row's own is.
    return [answer if answer.strip() else row.target for answer, row in zip(answers, rows, strict=True)]


# -- ELECTRA -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SoftLoss:
    """The loss of a student whose batches carry what the teacher's head gave (`unmask.data.finetuning.Taught`)."""

    student: ElectraTaskModel
    temperature: float
    share: float

    def __call__(self, batch: Batch, step: int, whole: Batch) -> Loss:
        found = self.student.decisions(batch)
        # The teacher's are as wide as the widest of all batches.
        soft = torch.from_numpy(batch["teacher"]).to(self.student.device)[:, : found.logits.shape[1]]
        if isinstance(self.student, RegressionModel):
            hard, near = F.mse_loss(found.logits[:, 0], found.targets), F.mse_loss(found.logits, soft)
        else:
            hard = F.cross_entropy(found.logits, found.targets)
            near = soft_cross_entropy(found.logits, soft, self.temperature)
        total = self.share * near + (1 - self.share) * hard
        counted = len(found.targets)
        return task_loss(total * counted, counted, len(whole["teacher"]), len(batch["inputs"]))


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), the mean over rows, in nats.

    Args:
        student, teacher: (rows, labels) logits, finite.
    """
    divergence = F.kl_div(
        (student / temperature).log_softmax(-1),
        (teacher / temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def _soft_lesson(
    lesson: Lesson, master: TaskModel, rows: Sequence[Row], directory: Path, distilling: DistilSettings
) -> Lesson:
    student: Any = lesson.learner
    if not isinstance(master, ElectraTaskModel) or not isinstance(student, ElectraTaskModel):
        raise UserError(
            f"an ELECTRA's answers to {student.task.kind} cannot be handed on: distillation is for its heads, and for "
            "T5"
        )
    if master.labels != student.labels:
        raise UserError(
            f"the teacher's labels are {', '.join(master.labels)}, the task's are {', '.join(student.labels)}"
        )
    source, asked = student.examples(rows), master.examples(rows)
    if not _alike(student.task.its_kind.head, source, asked):
        raise UserError(
            f"teacher and student cut the rows of {student.task.name!r} into other tokens: for {student.task.kind} "
            "they need one vocabulary and one max_position_embeddings"
        )
    path = directory / OUTPUTS
    if not path.is_file():
        hub.write_weights(path, _decided(master, asked))
    said = hub.read_tensors(path)
    return dataclasses.replace(
        lesson,
        sources=Taught(source, said["logits"].numpy(), said["counts"].numpy()),
        loss=SoftLoss(student, distilling.temperature, distilling.soft_share),
    )


def _alike(head: str, first: Any, second: Any) -> bool:
    """Whether decisions about one source's examples are decisions about the other's."""
    every = np.arange(len(first))
    if head not in ("tokens", "span"):
        return True
    return len(first) == len(second) and bool((first.lengths(every) == second.lengths(every)).all())


@torch.inference_mode()
def _decided(master: ElectraTaskModel, source: Any) -> dict[str, Tensor]:
    """What the teacher's head gives for all examples of a source, in their order."""
    of_example: dict[int, Tensor] = {}
    for numbers, batch in master.batches(source):
        found = master.decisions(batch)
        of_example |= zip(numbers, found.logits.cpu().split(list(found.counts)), strict=True)
    logits = [of_example[number] for number in range(len(source))]
    widest = max(one.shape[1] for one in logits)
    padded = [F.pad(one, (0, widest - one.shape[1]), value=ABSENT) for one in logits]
    return {"logits": torch.cat(padded), "counts": torch.tensor([len(one) for one in logits])}
