"""Nothing waits for the device; as far as a machine without one can show it."""

from __future__ import annotations

from unittest.mock import MagicMock, call

import torch

from unmask.nn.transfer import to_device


def test_to_cuda_from_pinned_memory() -> None:
    tensor, cuda = MagicMock(spec=torch.Tensor), torch.device("cuda")
    there = to_device(tensor, cuda)
    assert tensor.mock_calls == [call.pin_memory(), call.pin_memory().to(cuda, non_blocking=True)]
    assert there is tensor.pin_memory.return_value.to.return_value


def test_on_the_host_nothing_is_copied() -> None:
    tensor = torch.arange(3)
    assert to_device(tensor, torch.device("cpu")) is tensor
