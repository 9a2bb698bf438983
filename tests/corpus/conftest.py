"""A cleaning run in this process, on documents given as values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def clean(tmp_path: Path) -> Callable[..., tuple[list[str], Any]]:
    """clean(documents, recipe settings…) → (ids that stay, the corpus)."""
    from unmask.corpus.executors import in_this_process
    from unmask.corpus.pipeline import make_corpus
    from unmask.corpus.reading import read_documents
    from unmask.corpus.recipe import CorpusRecipe

    runs = 0

    def run(documents: Iterable[dict[str, str]], **settings: Any) -> tuple[list[str], Any]:
        nonlocal runs
        runs += 1
        source = tmp_path / f"source-{runs}.jsonl"
        source.write_text("".join(json.dumps(document) + "\n" for document in documents))
        recipe = CorpusRecipe(**{"validation_share": 0.0} | settings)
        made = make_corpus([str(source)], tmp_path / f"out-{runs}", recipe, in_this_process)
        return [document.id for document in read_documents(made.directory)], made

    return run
