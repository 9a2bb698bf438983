"""Losses that never hold more logits than they need."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unmask.nn import lines
from unmask.nn.cross_entropy import cross_entropy_
from unmask.nn.ids import check_count, check_labels

# Rows of float32 logits held at a time: 256 × 32,128 are 33 MB.
CHUNK_ROWS = 256


def at_least_float32(x: Tensor) -> Tensor:
    """Logits in a type in which sums and exponentials may be taken: float64 stays, narrower ones become float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    row_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum of the cross-entropies of `hidden @ weightᵀ + bias` against `targets`, chunk by chunk.

    Logits, their softmax and their gradient exist for a few hundred rows at a time; the gradients are made in
    the forward pass, where the logits are, and only those that will be asked for. Under autocast the products
    run in its type; sums are at least float32 whatever the inputs' type.

    Args:
        hidden: (rows, width).
        weight: (vocabulary, width).
        targets: (rows,) int64, every one a valid id: rows without a label are left out by the caller.
        bias: (vocabulary,) or None.
        row_weights: (rows,) what each row counts; None: 1.
        label_smoothing: share ε of each target's probability that is spread evenly over the vocabulary: the target is
            1 − ε + ε/V, every other id ε/V (arXiv 1512.00567, section 7), as PyTorch has it.

    Returns:
        A scalar, float32 (float64 for float64 weights): the sum over rows, in nats.
    """
    # Inside the function autograd says what requires a gradient, but no longer whether gradients are on.
    wanted = tuple(
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad
        for tensor in (hidden, weight, bias)
    )
    return _LinearCrossEntropy.apply(hidden, weight, bias, targets, row_weights, label_smoothing, wanted)


def linear_log_probabilities(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None
) -> Tensor:
    """log softmax(`hidden @ weightᵀ + bias`) at each row's target, chunk by chunk.

    For losses that use the probabilities further; where their sum is the loss, `linear_cross_entropy` makes the
    logits once, here they are made again in the backward pass.

    Args:
        hidden: (rows, width).
        weight: (vocabulary, width).
        targets: (rows,) int64.
        bias: (vocabulary,) or None.

    Returns:
        (rows,) float32 (float64 for float64 weights), at most 0, in nats.
    """

    def chunk(rows: Tensor, wanted: Tensor) -> Tensor:
        logits = F.linear(rows, weight)
        logits = at_least_float32(logits)
        if bias is not None:
            logits = logits + bias
        return logits.gather(1, wanted[:, None]).squeeze(1) - torch.logsumexp(logits, -1)

    pieces = zip(hidden.split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([chunk(*piece) for piece in pieces])
    return torch.cat([checkpoint(chunk, *piece, use_reentrant=False) for piece in pieces])


def classification_loss(logits: Tensor, labels: Tensor, problem_type: str | None = None) -> Tensor:
    """The mean loss over a batch of texts, as Transformers defines it.

    Args:
        logits: (batch, outputs).
        labels: (batch,) int64 classes; (batch,) or (batch, outputs) numbers for regression; or
            (batch, outputs) of 0 and 1 where several can hold.
        problem_type: "regression", "single_label_classification" or "multi_label_classification"; None:
            one output means regression, integers mean classes, anything else several labels.

    Raises:
        UserError: labels of no class, or of another number of texts.
    """
    logits = logits.float()
    kind = problem_type
    if kind is None:
        classes = not labels.is_floating_point()
        kind = "single_label_classification" if classes else "multi_label_classification"
        kind = "regression" if logits.shape[1] == 1 else kind
    if kind == "single_label_classification":
        return F.cross_entropy(logits, check_labels(labels, logits))
    check_count("labels", labels, logits.numel())
    if kind == "regression":
        return F.mse_loss(logits.flatten(), labels.float().flatten())
    return F.binary_cross_entropy_with_logits(logits, labels.float())


def span_loss(start: Tensor, end: Tensor, seen: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The mean of two cross-entropies, of the first and of the last token of an answer, in nats.

    Args:
        start, end: (batch, width) logits.
        seen: (batch, width), nonzero on tokens.
        starts, ends: (batch,) int64 columns; one that is not on a token does not count.

    Raises:
        UserError: positions of another number of texts.
    """
    check_count("start_positions", starts, start.shape[0])
    check_count("end_positions", ends, end.shape[0])
    return (_position_loss(start, seen, starts) + _position_loss(end, seen, ends)) / 2


def _position_loss(logits: Tensor, seen: Tensor, positions: Tensor) -> Tensor:
    columns = positions.clamp(0, logits.shape[1] - 1)
    counted = (columns == positions) & (seen.gather(1, columns[:, None])[:, 0] != 0)
    return F.cross_entropy(logits.float(), columns.masked_fill(~counted, -100), ignore_index=-100)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        row_weights: Tensor | None,
        label_smoothing: float,
        wanted: tuple[bool, bool, bool],
    ) -> Tensor:
        device = hidden.device
        matmul_type = _autocast_type(device) or weight.dtype
        sum_type = torch.promote_types(weight.dtype, torch.float32)
        narrow_weight = weight.to(matmul_type)
        loss = torch.zeros((), dtype=sum_type, device=device)
        d_hidden = torch.empty_like(hidden) if wanted[0] else None
        d_weight: Tensor | None = None
        d_bias = torch.zeros(weight.shape[0], dtype=sum_type, device=device) if wanted[2] else None
        chunk = chunk_rows(device, matmul_type)
        for first in range(0, hidden.shape[0], chunk):
            rows = slice(first, first + chunk)
            narrow = hidden[rows].to(matmul_type)
            logits = F.linear(narrow, narrow_weight)
            counts = None if row_weights is None else row_weights[rows]
            losses, gradient = _of_logits(
                logits, targets[rows], bias, counts, label_smoothing, d_bias, any(wanted)
            )
            loss += losses
            if gradient is None:
                continue
            gradient = gradient.to(matmul_type)
            if d_hidden is not None:
                d_hidden[rows] = gradient @ narrow_weight
            if wanted[1]:
                of_chunk = gradient.t() @ narrow
                d_weight = of_chunk.to(sum_type) if d_weight is None else d_weight.add_(of_chunk)
        if wanted[1] and d_weight is None:
            d_weight = torch.zeros(weight.shape, dtype=sum_type, device=device)
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.types = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place: the weight's is as large as the weight. A second pass back is refused by autograd.
        gradients = (
            None if gradient is None else gradient.mul_(upstream).to(kind)
            for gradient, kind in zip(ctx.saved_tensors, ctx.types, strict=True)
        )
        return *gradients, None, None, None, None


def chunk_rows(device: torch.device, kind: torch.dtype) -> int:
    """Rows of logits that are held at a time: as many bytes for any type; more where memory is the accelerator's."""
    if device.type != "cpu":
        return 8 * CHUNK_ROWS
    return 2 * CHUNK_ROWS if lines.available(kind) and kind == torch.bfloat16 else CHUNK_ROWS


def _of_logits(
    logits: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    counts: Tensor | None,
    label_smoothing: float,
    d_bias: Tensor | None,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    """The sum of a chunk's losses and, if wanted, the gradient of the logits, which are overwritten."""
    float32 = all(x is None or x.dtype == torch.float32 for x in (bias, d_bias))
    if logits.device.type == "cpu" and float32 and not label_smoothing and lines.available(logits.dtype):
        losses = cross_entropy_(logits, targets, bias, counts, gradient=wanted, of_bias=d_bias)
        return losses.sum(), logits if wanted else None
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if bias is not None:
        logits += bias
    target = targets[:, None]
    normaliser = torch.logsumexp(logits, -1, keepdim=True)
    losses = normaliser - (1 - label_smoothing) * logits.gather(1, target)
    if label_smoothing:
        losses -= label_smoothing * logits.mean(1, keepdim=True)
    if counts is not None:
        losses = losses * counts[:, None].to(logits.dtype)
    if not wanted:
        return losses.sum(), None
    gradient = _gradient_of_logits(logits, normaliser, target, label_smoothing)
    if counts is not None:
        gradient *= counts[:, None].to(logits.dtype)
    if d_bias is not None:
        d_bias += gradient.sum(0)
    return losses.sum(), gradient


def _autocast_type(device: torch.device) -> torch.dtype | None:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def _gradient_of_logits(logits: Tensor, normaliser: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """Softmax minus the (smoothed) one-hot, written over the logits."""
    gradient = logits.sub_(normaliser).exp_()
    if label_smoothing:
        gradient -= label_smoothing / gradient.shape[1]
    return gradient.scatter_add_(
        1, target, torch.full_like(target, label_smoothing - 1, dtype=gradient.dtype)
    )
