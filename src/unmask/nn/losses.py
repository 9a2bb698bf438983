"""Losses that never hold more logits than they need."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows of logits held at a time: 256 × 32,128 float32 logits are 33 MB.
CHUNK_ROWS = 256


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Sum of the cross-entropies of `hidden @ weightᵀ + bias` against `targets`, chunk by chunk.

    Logits, their softmax and their gradient exist for a few hundred rows at a time; the gradients are made in
    the forward pass, where the logits are. Sums are float32 whatever the inputs' type.

    Args:
        hidden: (rows, width).
        weight: (vocabulary, width).
        targets: (rows,) int64, every one a valid id: rows without a label are left out by the caller.
        bias: (vocabulary,) or None.

    Returns:
        A float32 scalar: the sum over rows, in nats.
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets, bias)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_autocast_enabled(hidden.device.type):
            matmul_type = torch.get_autocast_dtype(hidden.device.type)
        else:
            matmul_type = weight.dtype
        narrow_weight = weight.to(matmul_type)
        sum_type = torch.promote_types(weight.dtype, torch.float32)
        loss = torch.zeros((), dtype=sum_type, device=hidden.device)
        needs = ctx.needs_input_grad
        d_hidden = torch.empty_like(hidden) if needs[0] else None
        d_weight = torch.zeros(weight.shape, dtype=sum_type, device=weight.device) if needs[1] else None
        d_bias = torch.zeros(bias.shape, dtype=sum_type, device=weight.device) if bias is not None else None
        for first in range(0, hidden.shape[0], CHUNK_ROWS):
            rows = slice(first, first + CHUNK_ROWS)
            narrow = hidden[rows].to(matmul_type)
            logits = F.linear(narrow, narrow_weight).to(sum_type)
            if bias is not None:
                logits += bias
            target = targets[rows, None]
            normaliser = torch.logsumexp(logits, -1, keepdim=True)
            loss += (normaliser - logits.gather(1, target)).sum()
            if not (needs[0] or needs[1]):
                continue
            # d loss / d logits = softmax − one-hot, in place of the logits.
            gradient = logits.sub_(normaliser).exp_()
            gradient.scatter_add_(1, target, torch.full_like(target, -1, dtype=sum_type))
            if d_bias is not None:
                d_bias += gradient.sum(0)
            gradient = gradient.to(matmul_type)
            if d_hidden is not None:
                d_hidden[rows] = gradient @ narrow_weight
            if d_weight is not None:
                d_weight += gradient.t() @ narrow
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.types = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, Tensor | None]:
        d_hidden, d_weight, d_bias = (
            None if gradient is None else (gradient * upstream).to(kind)
            for gradient, kind in zip(ctx.saved_tensors, ctx.types, strict=True)
        )
        return d_hidden, d_weight, None, d_bias
