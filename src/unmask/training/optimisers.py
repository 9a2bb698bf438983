"""Optimisers: torch's, and thin subclasses for what torch lacks.

All know `found_inf`, by which torch's fused optimisers skip a step (`torch.amp.GradScaler` sets it): a float32 scalar
on the parameters' device, 1 where the gradient is not finite. Weights, moments and counts then stay as they are, and
no host has waited for the device to learn of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unmask.errors import UserError
from unmask.training.parallel import local, norms
from unmask.training.settings import OptimiserName


class UncorrectedAdamW(torch.optim.AdamW):
    """AdamW without bias correction, as BERT and ELECTRA train (google-research/electra,
    `model/optimization.py`: "AdamWeightDecayOptimizer").

    The corrections 1 − βᵗ are 1 for a large t, so each parameter's step count starts there; torch's fused
    kernels do the rest.
    """

    _FAR = 1e9

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = {
                        "step": torch.tensor(self._FAR, dtype=torch.float32, device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
        return super().step(closure)


class ScaledAdamW(torch.optim.AdamW):
    """AdamW whose rate is relative to each tensor's size, as Adafactor's is: lr · max(1e-3, RMS(parameter)).

    T5's matrices start at very different scales (queries at (d_model · d_kv)^-1/2, embeddings at 1), so that
    one absolute rate is too much for some and too little for others: plain AdamW diverges on it (nanoT5,
    arXiv 2309.02373, section 3.2, whose AdamWScale this is).
    """

    SMALLEST_SCALE = 1e-3

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, **options: Any) -> None:
        # A group for each tensor: a rate belongs to a group.
        groups = [group | {"params": [tensor]} for group in params for tensor in group["params"]]
        super().__init__(groups, lr=lr, **options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        tensors = [group["params"][0] for group in self.param_groups]
        rates = [group["lr"] for group in self.param_groups]
        # They stay tensors on the parameters' device: reading them would make the host wait for it.
        scaled = norms(tensors)
        torch._foreach_mul_(scaled, [tensor.numel() ** -0.5 for tensor in tensors])
        torch._foreach_clamp_min_(scaled, self.SMALLEST_SCALE)
        torch._foreach_mul_(scaled, rates)
        for group, rate in zip(self.param_groups, scaled, strict=True):
            group["lr"] = rate
        try:
            return super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate


class Adafactor(torch.optim.Optimizer):
    """Adafactor as T5 was trained: no momentum, second moments of matrices as a row and a column, steps relative
    to each tensor's size (arXiv 1804.04235, algorithms 4 and 5; constants of mesh-tensorflow's `optimize.py`).

    With t the number of a tensor's step and the means over its last two dimensions:

        β = 1 − t^−0.8;  R ← βR + (1 − β)·mean_columns(G² + 1e-30);  C likewise over rows
        U = G · (R / mean(R))^−½ · C^−½;  U ← U / max(1, RMS(U) / threshold)
        W ← W − lr · max(1e-3, RMS(W)) · U

    torch.optim.Adafactor differs: it never lets `lr` above 1/√t, puts ε elsewhere, factors small matrices too,
    reads two numbers a tensor back from the device, and does not run on FSDP2's shards; this one does.

    Args:
        params: tensors or groups.
        lr: relative to a tensor's root mean square.
        weight_decay: decoupled, W ← (1 − lr · weight_decay) · W.
        clip_threshold: the largest root mean square of an update, before `lr`.
        smallest_factored: matrices whose smaller side is below this keep a whole second moment.
    """

    EPSILON = 1e-30
    SMALLEST_SCALE = 1e-3
    DECAY_POWER = -0.8

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        weight_decay: float = 0.0,
        clip_threshold: float = 1.0,
        smallest_factored: int = 128,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "clip_threshold": clip_threshold,
            "smallest_factored": smallest_factored,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = _loss_of(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self._state(parameter, parameter.grad, group)
                    update = partial(self._update, parameter, parameter.grad, state, group)
                    _unless(self.found_inf, update, parameter, *state.values())
        return loss

    def _state(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        factored = gradient.dim() > 1 and min(gradient.shape[-2:]) >= group["smallest_factored"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            if factored:
                state["row"] = torch.zeros_like(gradient.select(-1, 0).unsqueeze(-1))
                state["column"] = torch.zeros_like(gradient.select(-2, 0).unsqueeze(-2))
            else:
                state["square"] = torch.zeros_like(gradient)
        return state

    def _update(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        state["step"] += 1
        weight = (state["step"] ** self.DECAY_POWER).to(gradient.dtype)
        if "row" in state:
            squares = gradient.square()
            row = state["row"].lerp_(_mean(squares, -1) + self.EPSILON, weight)
            column = state["column"].lerp_(_mean(squares, -2) + self.EPSILON, weight)
            # The roots one by one: their product would be 0 where a token's row has had no gradient.
            update = (gradient * (row / _mean(row, -2)).rsqrt_()).mul_(column.rsqrt())
        else:
            square = state["square"].lerp_(gradient.square() + self.EPSILON, weight)
            update = gradient * square.rsqrt()
        scale = _root_mean_square(parameter).clamp(min=self.SMALLEST_SCALE)
        excess = (_root_mean_square(update) / group["clip_threshold"]).clamp(min=1.0)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcmul_(update, scale / excess, value=-group["lr"])


def _unless(found_inf: Tensor | None, change: Callable[[], object], *tensors: Tensor) -> None:
    """Run what changes some tensors, unless `found_inf` is 1.

    On a device, where reading it would make the host wait, the change is made and undone there.
    """
    if found_inf is None or _on_host(found_inf):
        if not found_inf:
            change()
        return
    changed = [local(tensor) for tensor in tensors]
    before = [tensor.clone() for tensor in changed]
    change()
    for tensor, old in zip(changed, before, strict=True):
        torch.where(found_inf.bool(), old, tensor, out=tensor)


def _on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _loss_of(closure: Any) -> Any:
    """What a step's closure returns, run with gradients; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _mean(tensor: Tensor, dim: int) -> Tensor:
    """Over a dimension that is kept; from the sum, which adds up over shards of unequal size."""
    return tensor.sum(dim, keepdim=True) / tensor.shape[dim]


def _root_mean_square(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor) / math.sqrt(tensor.numel())


class MuonAdamW(torch.optim.Optimizer):
    """torch's Muon for the matrices of the layers, torch's AdamW for embeddings, norms, biases and heads.

    One learning rate serves both: Muon's updates are scaled to the size of Adam's, 0.2 · √max(rows, columns)
    ("match_rms_adamw"; Muon is Scalable for LLM Training, arXiv 2502.16982, section 2.2; Muon itself: Keller
    Jordan, https://kellerjordan.github.io/posts/muon/).

    Args:
        matrices: groups that Muon updates, of tensors with two dimensions.
        others: groups that AdamW updates.
    """

    found_inf: Tensor | None = None

    def __init__(
        self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], lr: float, **options: Any
    ) -> None:
        self._parts: list[tuple[bool, torch.optim.Optimizer]] = []
        if matrices:
            muon = torch.optim.Muon(
                [group | {"muon": True} for group in matrices],
                lr=lr,
                adjust_lr_fn="match_rms_adamw",
            )
            self._parts.append((True, muon))
        if others:
            adamw = torch.optim.AdamW([group | {"muon": False} for group in others], lr=lr, **options)
            self._parts.append((False, adamw))
        super().__init__([group for _, part in self._parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = _loss_of(closure)
        for muon, part in self._parts:
            # Here and not at the beginning: loading a state puts new dictionaries in their place.
            part.param_groups = [group for group in self.param_groups if group["muon"] == muon]
            part.state = self.state
            if muon:
                self._step_matrices(part)
            else:
                part.found_inf = self.found_inf  # type: ignore[attr-defined]
                part.step()
        return loss

    def _step_matrices(self, muon: torch.optim.Optimizer) -> None:
        """One by one, as torch's Muon does not know `found_inf`."""
        for group in muon.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault(
                    "momentum_buffer", torch.zeros_like(parameter.grad)
                )
                muon.param_groups = [group | {"params": [parameter]}]
                _unless(self.found_inf, muon.step, parameter, momentum)


#: A parameter inside a layer of a stack, and one below the first layer, by its name.
_LAYER = re.compile(r"(.*?)\blayers\.(\d+)\.")
_BELOW_LAYERS = re.compile(r"(.*?)\b(?:embeddings|projection)\.")


def layer_factors(names: Iterable[str], decay: float) -> dict[str, float]:
    """Parameter name → factor of the learning rate that falls by `decay` from layer to layer, heads at 1.

    Layer-wise decay of ELECTRA's fine-tuning (ELECTRA paper, table 7: 0.8 small and base, 0.9 large). The top
    layer has `decay` once: the released code has it twice there (google-research/electra, issue 51).

    Raises:
        UserError: a model whose layers are not one stack, as T5's.
    """
    names = list(names)
    if any(".layers." in name and "decoder." in name for name in names):
        raise UserError("layer_decay is a setting for ELECTRA: leave it out for a T5")
    # Halves of a pair have stacks of their own.
    depths: dict[str, int] = {}
    for stack, number in (match.groups() for match in map(_LAYER.match, names) if match):
        depths[stack] = max(depths.get(stack, 0), int(number) + 1)

    def below(name: str) -> int:
        """Layers from the heads down to this parameter."""
        if match := _LAYER.match(name):
            return depths[match[1]] - int(match[2])
        if match := _BELOW_LAYERS.match(name):
            return depths.get(match[1], 0) + 1
        return 0

    return {name: decay ** below(name) for name in names}


def make_optimiser(
    name: OptimiserName,
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
    factors: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser of that name over trainable parameters; weight decay spares norms and biases.

    - adamw: Adam with decoupled weight decay, β 0.9 / 0.999, ε 1e-8 (torch's defaults).
    - scaled-adamw: steps relative to each tensor's RMS, β 0.9 / 0.999, ε 1e-6 (nanoT5).
    - electra-adam: no bias correction, β 0.9 / 0.999, ε 1e-6 (google-research/electra).
    - adafactor: T5's, relative to each tensor's RMS, no momentum (`Adafactor`).
    - muon: experimental; Muon, momentum 0.95, for the layers' matrices, AdamW, β 0.9 / 0.95, for the rest.

    Args:
        factors: of the learning rate, by parameter name; default: 1 for all. A group has its own as
            `group["factor"]`, which whoever sets the rates multiplies in.
    """
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for parameter_name, parameter in named_parameters:
        if parameter.requires_grad:
            # Matrices and tables have two dimensions; norms and biases one.
            matrix = parameter.dim() > 1
            hidden = name == "muon" and parameter.dim() == 2 and _LAYER.match(parameter_name) is not None
            factor = 1.0 if factors is None else factors[parameter_name]
            groups.setdefault((hidden, matrix, factor), []).append(parameter)

    def made(hidden: bool) -> list[dict[str, Any]]:
        return [
            {
                "params": parameters,
                "weight_decay": weight_decay if matrix else 0.0,
                "factor": factor,
                "lr": learning_rate * factor,
            }
            for (inside, matrix, factor), parameters in groups.items()
            if inside == hidden
        ]

    if name == "muon":
        return MuonAdamW(made(True), made(False), lr=learning_rate, betas=(0.9, 0.95), fused=True)
    if name == "electra-adam":
        return UncorrectedAdamW(made(False), lr=learning_rate, eps=1e-6, fused=True)
    if name == "scaled-adamw":
        return ScaledAdamW(made(False), lr=learning_rate, eps=1e-6, fused=True)
    if name == "adafactor":
        return Adafactor(made(False), lr=learning_rate)
    return torch.optim.AdamW(made(False), lr=learning_rate, fused=True)
