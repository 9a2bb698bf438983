"""nanoT5's model (arXiv 2309.02373) in the same loop, from a checkout: `MyT5` of its `nanoT5/utils/t5_model.py`.

That file alone is loaded: the package around it needs what only its own training script uses.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from training import Batch, make_runner

MODEL = Path("nanoT5", "utils", "t5_model.py")


def load(model: Path, precision: str, threads: int) -> Callable[..., Any]:
    torch.set_num_threads(threads)
    weights = transformers.T5ForConditionalGeneration.from_pretrained(model).state_dict()
    config = transformers.T5Config.from_pretrained(model)
    theirs = _module(Path(os.environ["NANOT5_CHECKOUT"]) / MODEL).MyT5(config)
    theirs.load_state_dict(weights)
    call = torch.compile(theirs) if "compiled" in precision.split() else theirs

    def loss(batch: Batch) -> Tensor:
        return call(input_ids=batch["inputs"], labels=batch["targets"]).loss

    return make_runner([theirs], loss, lambda batch: [loss(batch)], precision)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("nanot5_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module
