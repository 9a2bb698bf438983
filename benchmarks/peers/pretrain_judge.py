"""Held-out losses of the weights that both sides wrote, by Transformers in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pretraining import Job
from transformers_pairs import T5, Electra, on_device, padded

from unmask.training import electra, t5

MODULES = {"pretrain_ours": "unmask", "pretrain_hf": "Transformers"}


def weights_of(batch: dict[str, np.ndarray]) -> dict[str, int]:
    """What each mean of a batch counts in the mean of all."""
    if "labels" in batch:
        return {"loss": int((batch["labels"] >= 0).sum())}
    return {
        "generator_loss": int(batch["drawn"].sum()),
        "discriminator_loss": int(batch["attention_mask"].sum()),
    }


@torch.inference_mode()
def measure(model: Any, batches: list[dict[str, np.ndarray]], device: torch.device) -> dict[str, float]:
    totals: dict[str, list[float]] = {}
    for number, batch in enumerate(batches):
        noise = torch.Generator(device).manual_seed(number)
        losses = model.losses(on_device(batch, device), noise)
        for name, weight in weights_of(batch).items():
            totals.setdefault(name, []).append(float(losses[name]) * weight)
    means = {
        name: sum(values) / sum(weights_of(batch)[name] for batch in batches)
        for name, values in totals.items()
    }
    if "loss" in means:
        return means
    return {"loss": means["generator_loss"] + 50.0 * means["discriminator_loss"], **means}


@torch.inference_mode()
def crossed(
    last: dict[str, Path], batches: list[dict[str, np.ndarray]], device: torch.device
) -> list[dict[str, Any]]:
    """Each discriminator's loss on what each generator samples."""
    models = {
        name: Electra(path, compiled=False, share=False).to(device).eval() for name, path in last.items()
    }
    rows = []
    for filler in models:
        sums = dict.fromkeys(models, 0.0)
        for number, batch in enumerate(batches):
            noise = torch.Generator(device).manual_seed(number)
            tensors = on_device(batch, device)
            filled, _ = models[filler].fill(tensors, noise)
            for judge, model in models.items():
                sums[judge] += float(model.judge(tensors, filled)) * int(batch["attention_mask"].sum())
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        rows.append({"samples of": filler} | {judge: total / tokens for judge, total in sums.items()})
    return rows


def main() -> None:
    job = Job()
    family = t5 if job.recipe.family == "t5" else electra
    (held_out,) = family.held_out_batches(job.recipe, job.shards, job.tokenizer).values()
    batches = [padded(batch) for batch in held_out][: job.settings["held_out"]]
    kind = T5 if job.recipe.family == "t5" else Electra
    results: dict[str, Any] = {"crossed": []}
    last = {}
    for module, side in MODULES.items():
        curve = []
        for path in sorted(job.snapshots(module).iterdir()):
            model = kind(path, compiled=False).to(job.device).eval()
            curve.append({"seconds": float(path.name), **measure(model, batches, job.device)})
            last[side] = path
        results[module] = curve
    if job.recipe.family == "electra":
        results["crossed"] = crossed(last, batches, job.device)
    job.result("pretrain_judge").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
