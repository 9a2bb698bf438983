"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data beside the checkout; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the reference data in {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """Real texts to train tokenizers on: definitions and restaurants by the line, and one long page."""
    with gzip.open(ROOT / "src" / "unmask" / "sample" / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(4000), strict=False)]
    return [(ROOT / "LICENSE").read_text(encoding="utf-8"), *texts]
