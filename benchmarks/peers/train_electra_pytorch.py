"""electra_pytorch's model and loss in the same loop, from a checkout: two classes of its `pretrain.py`.

They are taken out of the script, which around them loads data, and libraries that have since changed their names. What
they read of it is given here, with its default settings.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from training import Batch, device_of, make_runner

SCRIPT = "pretrain.py"
MODEL, LOSS = "ELECTRAModel", "ELECTRALoss"


def load(model: Path, precision: str, threads: int) -> Callable[..., Any]:
    torch.set_num_threads(threads)
    names = _classes(Path(os.environ["ELECTRA_PYTORCH_CHECKOUT"]) / SCRIPT)
    generator = transformers.ElectraForMaskedLM.from_pretrained(model / "generator")
    discriminator = transformers.ElectraForPreTraining.from_pretrained(model / "discriminator")
    discriminator.electra.embeddings = generator.electra.embeddings
    both = names[MODEL](generator, discriminator, SimpleNamespace(pad_token_id=generator.config.pad_token_id))
    both.to(device_of(precision))  # moves its distribution too, and returns nothing
    criterion = names[LOSS]()

    def arguments(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tokens = batch["tokens"]
        drawn = torch.zeros_like(tokens, dtype=torch.bool)
        drawn.view(-1)[batch["drawn"]] = True
        first_segments = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        return batch["masked"], first_segments, drawn, tokens.masked_fill(~drawn, -100)

    def loss(batch: Batch) -> Tensor:
        given = arguments(batch)
        return criterion(both(*given), given[-1])

    def losses(batch: Batch) -> list[Tensor]:
        drawn, tokens = batch["drawn"], batch["tokens"]
        logits = generator(input_ids=batch["masked"]).logits.flatten(0, 1)[drawn]
        judged = discriminator(input_ids=batch["corrupted"]).logits.float()
        return [
            F.cross_entropy(logits.float(), tokens.flatten()[drawn]),
            F.binary_cross_entropy_with_logits(judged, (batch["corrupted"] != tokens).float()),
        ]

    return make_runner([generator, discriminator], loss, losses, precision)


def _classes(script: Path) -> dict[str, Any]:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if getattr(node, "name", "") in (MODEL, LOSS)]
    names: dict[str, Any] = {
        "torch": torch,
        "nn": nn,
        "F": F,
        "CrossEntropyLossFlat": nn.CrossEntropyLoss,
        "c": SimpleNamespace(sampling="fp32_gumbel", my_model=False),
    }
    exec(compile(tree, str(script), "exec"), names)
    return names
