"""Dialogues: every turn but the first is a reply to those before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unmask.errors import UserError
from unmask.tasks.formats.files import Table, json_lines, read_lines

#: DailyDialog's mark behind each turn, and the names under which other files hold the list of turns.
END_OF_TURN = "__eou__"
NAMES = ("turns", "dialog", "dialogue", "utterances")
#: Turns that are read before a reply.
HISTORY = 5


def read_dialogue(path: Path) -> Table:
    """Columns: history (up to five turns, each with the letter of its speaker, A or B in turn, the last being the one
    that is replied to), reply.

    Args:
        path: text, a dialogue a line with `__eou__` behind each turn (DailyDialog), or JSON lines or Parquet with a
            list of turns in a column turns, dialog, dialogue or utterances.

    Raises:
        UserError: the file cannot be read, has no such column, or nobody replies.
    """
    table: dict[str, list[str]] = {"history": [], "reply": []}
    for turns in _dialogues(path):
        for number in range(1, len(turns)):
            said = range(max(0, number - HISTORY), number)
            table["history"].append(" ".join(f"{'AB'[turn % 2]}: {turns[turn]}" for turn in said))
            table["reply"].append(turns[number])
    if not table["reply"]:
        raise UserError(f"{path} has no dialogue of two turns or more")
    return table


def _dialogues(path: Path) -> Iterator[list[str]]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".txt"):
        for line in read_lines(path):
            yield _cleaned(line.split(END_OF_TURN))
    elif name.endswith(".parquet"):
        import pyarrow as pa
        from pyarrow import parquet

        try:
            rows = parquet.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:300]}"
            ) from None
        column = next((name for name in NAMES if name in rows.column_names), None)
        for number, turns in enumerate(rows.column(column).to_pylist() if column else [None], start=1):
            yield _listed(turns, f"{path}, row {number}")
    else:
        for number, row in json_lines(path):
            yield _listed(next((row[name] for name in NAMES if name in row), None), f"{path}, line {number}")


def _listed(turns: Any, where: str) -> list[str]:
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise UserError(f"{where}: no list of turns under {', '.join(NAMES)}")
    return _cleaned(turns)


def _cleaned(turns: list[str]) -> list[str]:
    return [" ".join(turn.split()) for turn in turns if turn.strip()]
