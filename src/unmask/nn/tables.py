"""Tables with a row for each token or place, made from the rows of another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rows_of(tensor: Tensor, sources: Sequence[tuple[int, ...]]) -> Tensor:
    """(ids, …) → (new ids, …): rows moved, or for a token that joins several, their mean; the mean of all for one that
    nothing stood for.

    Args:
        sources: of each new row the old ones.
    """
    made = tensor[torch.tensor([ids[0] if ids else 0 for ids in sources])]
    everything = None
    for new, ids in enumerate(sources):
        if len(ids) > 1:
            made[new] = tensor[list(ids)].float().mean(0).to(tensor.dtype)
        elif not ids:
            if everything is None:
                everything = tensor.float().mean(0).to(tensor.dtype)
            made[new] = everything
    return made


def repeated(tensor: Tensor, rows: int) -> Tensor:
    """(places, …) → (rows, …): the places from the first again where there are no more, as Longformer's begin
    (arXiv 2004.05150, section 5)."""
    return tensor[torch.arange(rows) % tensor.shape[0]]
