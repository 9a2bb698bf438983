"""A few rows of each kind of task, which tiny models learn in a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmask.tasks.task import Task

WORDS = ["cat", "dog", "mat", "Ada", "London", "me"]
#: Kind → settings of the task, rows.
DATA: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "text-to-text": (
        {"source": ("word",), "metrics": ("exact_match",)},
        [{"word": word, "target": word} for word in WORDS[:3]],
    ),
    "classification": (
        {"source": ("word",)},
        [{"word": word, "target": "yes" if "a" in word else "no"} for word in WORDS],
    ),
    "pair-classification": (
        {"source": ("a", "b"), "label_words": {"1": "true", "0": "false"}},
        [{"a": a, "b": b, "target": int(a == WORDS[0])} for a in WORDS[:3] for b in WORDS[:3]],
    ),
    "regression": (
        {"source": ("word",), "range": (0.0, 5.0)},
        [{"word": word, "target": place * 0.9} for place, word in enumerate(WORDS)],
    ),
    "tagging": (
        {"source": ("tokens",)},
        [
            {"tokens": f"{word} lived in {place}", "target": f"B-person O O {tag}"}
            for word in ("Ada", "The", "me")
            for place, tag in (("London", "B-location"), ("it", "O"))
        ],
    ),
    "question-answering": (
        {"source": ("question", "context"), "unanswerable": True, "max_source_length": 40, "stride": 4},
        [
            {
                "question": f"Who sat on the {place}?",
                "context": f"the {who or place} sat on it",
                "target": who,
            }
            for place, who in (("mat", "cat"), ("dog", ""), ("me", "dog"))
        ],
    ),
    "multiple-choice": (
        {"source": ("question",), "choices": ("one", "two")},
        [
            {"question": word, "one": one, "two": two, "target": [one, two].index(word)}
            for word in WORDS[:3]
            for one, two in ((word, "Ada"), ("me", word))
        ],
    ),
}


def task_of(
    kind: str, directory: Path, rows: Sequence[dict[str, Any]] | None = None, **settings: Any
) -> Task:
    path = directory / "rows.jsonl"
    values = DATA[kind][1] if rows is None else rows
    path.write_text("".join(json.dumps(row) + "\n" for row in values))
    return Task(
        **{
            "name": kind,
            "kind": kind,
            "target": "target",
            "train": path,
            "test": path,
            **DATA[kind][0],
            **settings,
        }
    )
