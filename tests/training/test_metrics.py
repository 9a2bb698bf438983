"""The log of a run where nothing more can be written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unmask.training.metrics import MetricsLog


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_names_the_log(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, keep_below=0)
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        log.write(1, "training", {"loss": 1.0})
