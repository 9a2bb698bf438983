"""What the results of a job over many texts depend on."""

from __future__ import annotations

import json
from pathlib import Path

from unmask.tasks.writing import fingerprint


def test_a_fingerprint_is_of_all_that_a_model_is_made_of(tmp_path: Path) -> None:
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    model.mkdir()
    adapter.mkdir()
    weights = bytearray(3 << 20)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(weights)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}))
    before = fingerprint(model), fingerprint(adapter)
    assert before == (fingerprint(model), fingerprint(adapter))
    assert before[0] != before[1]
    # As of one layer among many.
    weights[len(weights) // 2] = 1
    (model / "model.safetensors").write_bytes(weights)
    assert fingerprint(model) != before[0]
    assert fingerprint(adapter) != before[1], "an adapter without its base is no model"
    weights[len(weights) // 2] = 0
    (model / "model.safetensors").write_bytes(weights)
    assert (fingerprint(model), fingerprint(adapter)) == before
    (model / "config.json").rename(model / "other.json")
    assert fingerprint(model) != before[0]
