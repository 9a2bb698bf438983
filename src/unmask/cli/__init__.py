"""The command line: one short file a command. No logic here: parse, call, print."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from cyclopts import App, CycloptsError

from unmask import __version__
from unmask.errors import UserError

app = App(
    name="unmask",
    version=__version__,
    help="Train, run and explain T5 and ELECTRA, the models that learn by repairing damaged text.",
    # What was saved before we stopped is ours to say.
    suppress_keyboard_interrupt=False,
)
# By import path, so that `unmask --help` does not wait for torch.
for name, summary in {
    "quickstart": "Train, fine-tune and evaluate a tiny T5 and a tiny ELECTRA on the data that ships with unmask.",
    "corpus": "Clean raw text into documents to train on; the same command again continues a stopped run.",
    "pack": "Tokenise a corpus into shards that training reads.",
    "doctor": "Say before a run what it needs, how long it takes, and what is likely wrong.",
    "pretrain": "Pre-train a model from raw text; the same command again continues a stopped run.",
    "show-batch": "Show the examples of a pre-training batch, as the model sees them.",
    "check": "Say what is wrong with a task's data, before training.",
    "finetune": "Fine-tune a model on a task.",
    "distil": "Teach a smaller model what a fine-tuned one answers.",
    "evaluate": "Score a fine-tuned model on a task's held-out rows, beside simple baselines or another model.",
    "predict": "Answer the rows of files of any size with a fine-tuned model.",
    "compare": "Compare pre-training objectives at equal compute, with the spread over seeds.",
    "generate": "Write text with a model.",
    "fill": "Show what a model puts into gaps, and which tokens ELECTRA suspects.",
    "explain": "Write a page on why a model says what it says.",
    "serve": "Serve models over HTTP, OpenAI-compatible.",
    "quantize": "Write a model in int8 or bfloat16, and report what that costs.",
    "convert": "Turn a checkpoint of T5X, Flax or Google's ELECTRA, or an adapter, into a model directory.",
}.items():
    module = name.replace("-", "_")
    app.command(f"unmask.cli.{module}:{module}", name=name, help=summary)
tokenizer = App(name="tokenizer", help="Make tokenizers.")
tokenizer.command("unmask.cli.tokenizer_train:train", name="train", help="Train a tokenizer on raw text.")
app.command(tokenizer)
task = App(name="task", help="Make tasks, and see those that are built in.")
for name, function, summary in (
    ("new", "new", "Make a task of a table with two columns."),
    ("list", "list_", "Show the tasks that are built in."),
):
    task.command(f"unmask.cli.task:{function}", name=name, help=summary)
app.command(task)
vocabulary = App(name="vocabulary", help="Change a model's vocabulary.")
for name, summary in {
    "trim": "Keep the tokens alone that a corpus uses.",
    "extend": "Add tokens that a corpus needs.",
}.items():
    vocabulary.command(f"unmask.cli.vocabulary:{name}", name=name, help=summary)
app.command(vocabulary)
export = App(name="export", help="Write a model for another engine.")
for name, summary in {
    "ct2": "Write a T5 for CTranslate2.",
    "onnx": "Write a T5 or an ELECTRA as ONNX graphs, checked in ONNX Runtime.",
    "transformers": "Write a model as a plain directory of Transformers.",
}.items():
    export.command(f"unmask.cli.export:{name}", name=name, help=summary)
app.command(export)


def main() -> NoReturn:
    """Run a command. Exit codes: 0 done, 2 something the user can put right, 130 interrupted and saved."""
    # Libraries that ask on import are answered before any is imported.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # DDP remarks that it looks for unused parameters, as it is told to (training/parallel.py).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    sys.exit(_run(sys.argv[1:]))


def _run(tokens: list[str]) -> int:
    try:
        # A bare hyphen is standard input, which cyclopts would take for an option.
        given = ["/dev/stdin" if token == "-" else token for token in tokens]
        app(given, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as `unmask generate … | head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # No room, no permission, a file where a directory should be: the system says it well in one line.
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
