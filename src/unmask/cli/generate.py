"""`unmask generate`."""

from __future__ import annotations

from pathlib import Path

from unmask.cli.machine import Machine


def generate(
    model: str,
    texts: list[str] | None = None,
    /,
    *,
    input: Path | None = None,
    output: Path | None = None,
    max_new_tokens: int | None = None,
    machine: Machine = Machine(),  # noqa: B008 (frozen)
) -> None:
    """Write text: T5 answers each text, ELECTRA continues it.

    Args:
        model: a model directory or Hub name.
        texts: what to answer or continue.
        input: a text file with one input a line, instead of texts.
        output: a file for the results, one line an input; default: print them.
        max_new_tokens: the most tokens to write for each; default: 64 for T5, for ELECTRA 20 or what fits.
    """
    from unmask.cli.inputs import read_lines
    from unmask.hub import write_atomically
    from unmask.tasks.writing import write_texts

    results = write_texts(model, read_lines(texts, input), max_new_tokens, device=machine.prepare())
    if output is None:
        for result in results:
            print(result)
    else:
        write_atomically(output, "".join(result.replace("\n", " ") + "\n" for result in results))
