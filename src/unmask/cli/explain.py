"""`unmask explain`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def explain(
    model: str,
    /,
    *,
    text: str,
    out: Path,
    target: str | None = None,
    steps: int = 64,
    max_new_tokens: int = 64,
    threads: int | None = None,
) -> None:
    """Write a page on why a model says what it says: one HTML file that needs no network.

    Args:
        model: a model directory or Hub name: T5, or ELECTRA's discriminator, generator, pair or classifier.
        text: what the model reads, with its task's prefix; gaps for ELECTRA's generator are ___ (three underscores).
        out: the page.
        target: T5: the text to explain instead of what the model writes; a classifier: the label.
        steps: points of each integral; more make delta smaller.
        max_new_tokens: (T5) of what is written.
        threads: CPU threads; default: one for each core this process may use.
    """
    from unmask import hub
    from unmask.cli.machine import Machine
    from unmask.errors import UserError
    from unmask.explain import electra_page, t5_page
    from unmask.report import write_page
    from unmask.tasks.models import family_of

    Machine(device="cpu", threads=threads).prepare()
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise UserError(f"--out {out}: give a file in a directory that is there")
    directory = hub.find_model(model)
    family = family_of(directory)
    if family == "t5":
        page = t5_page.explain(
            directory, text, target=target, steps=steps, max_new_tokens=max_new_tokens, watch=_watched
        )
    elif family == "electra":
        page = electra_page.explain(directory, text, target=target, steps=steps)
    else:
        raise UserError(f"{directory} is an encoder–decoder: explained are T5 and ELECTRA")
    write_page(out, page)
    print(out)


def _watched(places: Sequence[int]) -> Iterable[int]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(places, "attributing tokens", console=console, disable=not console.is_terminal)
