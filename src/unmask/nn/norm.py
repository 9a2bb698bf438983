"""T5's normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.nn.lines import KINDS, available
from unmask.nn.losses import at_least_float32
from unmask.nn.row_norms import rms_norm


class RMSNorm(nn.Module):
    """Scale by the root mean square: no mean is subtracted and nothing is added (T5 paper, 2.1).

    The statistics are at least float32 whatever the input's type, as in Mesh-TensorFlow; the result has the weight's
    type, or in training on a CPU that of autocast.

    Shape: (…, width) → (…, width).
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if self._is_trained(x):
            autocast = torch.is_autocast_enabled("cpu")
            kind = torch.get_autocast_dtype("cpu") if autocast else torch.float32
            return rms_norm(x, self.weight, self.eps, kind if kind in KINDS else torch.float32)
        if x.dtype == self.weight.dtype == torch.float32:
            return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        wide = at_least_float32(x)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(self.weight.dtype)

    def _is_trained(self, x: Tensor) -> bool:
        """Whether this is a training step that compiled code can make."""
        trained = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        return (
            trained
            and x.device.type == "cpu"
            and self.weight.dtype == torch.float32
            and available(x.dtype, self.weight.dtype)
        )
