"""A plain model on several processes: DDP or FSDP2, applied from outside (the habit of torchtitan).

The model knows nothing of it. What a step or an evaluation does with the model is run as the forward pass of a module
around it (`Spread.run`), which is where both techniques do their work: DDP so that gradients are added up over the
ranks as they are made, FSDP2 so that weights are gathered layer by layer and gradients scattered back to the ranks.
Each rank's loss is its part of the whole batch's, divided by the whole batch's counts: gradients are sums, not means.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.training.layers import layers_of
from unmask.training.ranks import ALONE, Ranks
from unmask.training.settings import OptimiserName, Parallel

T = TypeVar("T")

#: Optimisers that need a matrix whole: torch's Muon orthogonalises it, and refuses shards.
NEEDS_WHOLE: tuple[OptimiserName, ...] = ("muon",)


def check_parallel(parallel: Parallel, optimiser: OptimiserName) -> None:
    """Raises:
    UserError: an optimiser that cannot work on shards.
    """
    if parallel == "fsdp" and optimiser in NEEDS_WHOLE:
        raise UserError(
            f"the optimiser {optimiser} needs whole matrices and cannot run on FSDP's shards: choose --parallel "
            "ddp, or another optimiser"
        )


class Spread:
    """A model on the ranks of a run.

    Args:
        model: on its device, with the same weights on every rank; with "fsdp" its parameters become shards
            (`DTensor`), so whatever refers to them has to be made afterwards.
        parallel: "ddp": each rank has the whole model; "fsdp": each has a part of every layer.

    Attributes:
        is_sharded: whether parameters are shards.
    """

    def __init__(self, model: nn.Module, ranks: Ranks = ALONE, parallel: Parallel = "ddp") -> None:
        self.model, self.ranks = model, ranks
        self.is_sharded = ranks.count > 1 and parallel == "fsdp"
        self._whole: nn.Module = _Forward(model)
        self._ddp = None
        if self.is_sharded:
            _shard(self._whole, model)
        elif ranks.count > 1:
            self._ddp = _replicate(self._whole)

    def run(self, function: Callable[..., T], *arguments: Any, last: bool = True) -> T:
        """`function(*arguments)`, which makes a loss from the model and returns it first in a tuple.

        Args:
            last: of several losses whose gradients are added up before a step is made; DDP tells the ranks' gradients
                to each other after the last.
        """
        if self._ddp is None:
            return self._whole(function, *arguments)
        with nullcontext() if last else self._ddp.no_sync():
            return self._ddp(function, *arguments)

    def look(self, function: Callable[[], T]) -> T:
        """`function()`, which asks the model something without gradients; on all ranks, or none."""
        if not self.is_sharded:
            with torch.inference_mode():
                return function()
        from torch.distributed.fsdp import FSDPModule

        # What is gathered in inference mode could not be trained on afterwards.
        with torch.no_grad():
            found = self._whole(function)
        for module in self._whole.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        return found

    def norm(self, tensors: list[Tensor]) -> Tensor:
        """The norm of all together, over all ranks' shards."""
        return whole(nn.utils.get_total_norm(tensors, foreach=True))

    def gather(self) -> None:
        """The end of training on shards: the first rank's model has its weights whole again, in memory of the host.

        Nothing but reading and saving them is possible afterwards.
        """
        if not self.is_sharded:
            return
        made: dict[int, nn.Parameter] = {}
        for module in self.model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in made:
                    full = whole(parameter.detach())
                    made[id(parameter)] = nn.Parameter(full.cpu()) if self.ranks.is_first else parameter
                module._parameters[name] = made[id(parameter)]


class _Forward(nn.Module):
    """Anything that is done with a model, as a forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)


def _mesh(module: nn.Module) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    device = next(module.parameters()).device.type
    return init_device_mesh(device, (dist.get_world_size(),), mesh_dim_names=("data",))


def _replicate(module: nn.Module) -> nn.parallel.DistributedDataParallel:
    # Looking for unused parameters keeps the buckets of gradients as they are at the start. Otherwise they are made
    # anew after the first step, and a continued run would add up in another order than one that was never stopped.
    ddp = nn.parallel.DistributedDataParallel(
        module,
        device_mesh=_mesh(module),
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
    )
    # In a lambda: DDP reads annotations, and does not understand those of this file.
    ddp.register_comm_hook(None, lambda state, bucket: _added(bucket))
    return ddp


def _added(bucket: Any) -> torch.futures.Future[Tensor]:
    """The sum over ranks, where DDP's own is the mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def _shard(root: nn.Module, model: nn.Module) -> None:
    """FSDP2 over each layer, and over what is left: embeddings, final norms, heads."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = _mesh(root)
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(root, mesh=mesh)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


# --- shards ---------------------------------------------------------------------------------------------


def whole(tensor: Tensor) -> Tensor:
    """A tensor from its shards; any other as it is. On all ranks, or none."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's shard, which shares the tensor's memory; any other tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """The Euclidean norm of each, of shards that of the whole tensors: all of one kind, told between ranks at once."""
    if not hasattr(tensors[0], "to_local"):
        return list(torch._foreach_norm(tensors))
    mesh: Any = getattr(tensors[0], "device_mesh")  # noqa: B009 (only shards have one)
    squares = torch.stack(torch._foreach_norm([local(tensor) for tensor in tensors])).square_()
    dist.all_reduce(squares, group=mesh.get_group())
    return list(squares.sqrt_().unbind())
