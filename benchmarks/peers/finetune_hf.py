"""One fine-tuning by Transformers' Trainer for `benchmarks/finetune.py`, with its defaults for what is not named."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Points(TrainerCallback):
    """Writes the weights at equal distances, with the clock stopped."""

    def __init__(self, out: Path, every: int, initial: Path, clock: Callable[[], float]) -> None:
        self.out, self.every, self.initial, self.clock = out, every, initial, clock
        self.begun, self.away = clock(), 0.0
        self.seconds, self.directories = list[float](), list[str]()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.begun = self.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        now = self.clock()
        self.seconds.append(now - self.begun - self.away)
        place = self.out / f"point-{len(self.seconds)}"
        model.save_pretrained(place)
        for file in self.initial.iterdir():
            # The tokenizer as it was.
            if not (place / file.name).exists():
                shutil.copy(file, place)
        self.directories.append(str(place))
        self.away += self.clock() - now


def tuned(ours: dict[str, Any], steps: int) -> dict[str, Any]:
    """unmask's rate, schedule and warm-up, with AdamW. Where unmask has Adafactor, whose steps are relative to the
    weights as the Trainer's are not, AdamW at a tenth of that rate, linear after a warm-up: of a T5 that is 128 wide,
    3e-3, better than 1e-3 on two of three sets."""
    if ours["optimiser"] == "adafactor":
        ours = {"learning_rate": ours["learning_rate"] / 10, "schedule": "linear", "warmup_share": 0.1}
    return {
        "learning_rate": ours["learning_rate"],
        "lr_scheduler_type": "constant" if ours["schedule"] == "constant" else "linear",
        "warmup_steps": round(ours["warmup_share"] * steps),
        "optim": "adamw_torch_fused",
    }


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    transformers.utils.logging.set_verbosity_error()
    out = Path(job["out"])
    tokenizer = AutoTokenizer.from_pretrained(job["initial"])
    if job["family"] == "t5":
        model = AutoModelForSeq2SeqLM.from_pretrained(job["initial"])
        collator = DataCollatorForSeq2Seq(tokenizer, model)
    elif job["kind"] == "tagging":
        model = AutoModelForTokenClassification.from_pretrained(job["initial"])
        collator = DataCollatorForTokenClassification(tokenizer)
    elif job["kind"] == "question-answering":
        model = AutoModelForQuestionAnswering.from_pretrained(job["initial"])
        collator = DataCollatorWithPadding(tokenizer)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(job["initial"])
        collator = DataCollatorWithPadding(tokenizer)
    rates = {} if job["system"] == "Trainer" else tuned(job["ours"], job["steps"])
    arguments = TrainingArguments(
        output_dir=str(out / "trainer"),
        max_steps=job["steps"],
        per_device_train_batch_size=job["batch_size"],
        seed=job["seed"],
        use_cpu=job["device"] == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **rates,
    )
    clock = time.process_time if job["clock"] == "processor" else time.perf_counter
    points = Points(out, math.ceil(job["steps"] / job["points"]), Path(job["initial"]), clock)
    examples = json.loads(Path(job["examples"]).read_text())
    Trainer(model, arguments, data_collator=collator, train_dataset=examples, callbacks=[points]).train()
    found = {"seconds": points.seconds, "directories": points.directories}
    (out / "points.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
