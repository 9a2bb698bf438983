"""The peer's side of a timed pre-training: a plain PyTorch loop around Transformers' models."""

from __future__ import annotations

import json
from contextlib import closing

import torch
from pretraining import START_UP, Job
from torch import nn
from transformers_pairs import T5, Electra, on_device, padded, token_count

from unmask.data.stream import read_ahead
from unmask.training.optimisers import make_optimiser
from unmask.training.pretraining import pretraining_of
from unmask.training.schedules import schedule

#: Into how many parts the schedule divides the time.
FINE = 1_000_000
#: Steps between two looks at the clock, which wait for the device where that is a GPU.
LOOK = {"cpu": 1, "cuda": 5}


def main() -> None:
    job = Job()
    recipe, folder = job.recipe, job.snapshots("pretrain_hf")
    # What unmask took, whose steps may have been quicker or slower than they were reckoned to be.
    budget: float = json.loads(job.result("pretrain_ours").read_text())["seconds"]
    torch.manual_seed(recipe.seed)
    first = min(job.snapshots("pretrain_ours").iterdir())
    kind = T5 if recipe.family == "t5" else Electra
    model = kind(first, compiled=job.settings["compile_peer"]).to(job.device).train()
    parameters = list(model.parameters())
    optimiser = make_optimiser(
        recipe.optimiser,
        model.named_parameters(),
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )
    factor = schedule(
        recipe.schedule,
        steps=FINE,
        warmup_steps=round(job.warmup_share * FINE),
        decay_share=recipe.decay_share,
        final_factor=recipe.final_factor,
    )
    # Padded where they are read ahead, as a data loader's collator would.
    batches = pretraining_of(recipe, job.shards, job.tokenizer, torch.device("cpu")).batches.map(padded)
    clock, tokens, steps, seconds, written = job.new_clock(), 0, 0, 0.0, 0
    model.save(folder / f"{0:010.3f}")
    with closing(read_ahead(batches, 0, len(batches))) as ahead:
        for batch in ahead:
            if steps == START_UP:
                clock.start()
            if steps > START_UP and steps % LOOK[job.device.type] == 0:
                seconds = clock.seconds()
            due = int(seconds / budget * job.settings["points"])
            if due > written:
                clock.stop()
                model.save(folder / f"{seconds:010.3f}")
                written = due
                clock.start()
            if seconds >= budget:
                break
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * factor(int(min(1, seconds / budget) * FINE))
            with torch.autocast(job.device.type, torch.bfloat16):
                loss = model.losses(on_device(batch, job.device))["loss"]
            loss.backward()
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            steps += 1
            if steps > START_UP:
                tokens += token_count(batch)
    clock.stop()
    job.write("pretrain_hf", {"steps": steps, "tokens": tokens, "seconds": seconds})


if __name__ == "__main__":
    main()
