"""Adapters on disk, in the format of PEFT: what LoRA has learnt, without the model that it was learnt on.

`adapter_config.json` says which model that is and which of its layers are adapted; `adapter_model.safetensors` holds
their two matrices and the new heads, under the Hub's names (github.com/huggingface/peft,
`docs/source/developer_guides/checkpoint.md`). unmask writes the model's `config.json` beside them, for the names of
the labels; a directory without it, as PEFT writes them, is read too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from unmask import hub
from unmask.errors import UserError
from unmask.nn.lora import adapted

if TYPE_CHECKING:
    from unmask.nn.pretrained import PretrainedModel

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
#: What some models' names on the Hub begin with and others' do not.
_BACKBONES = ("transformer.", "electra.")
#: Settings of PEFT that change what an adapter computes, with the values that mean "not used".
_UNUSED: dict[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "bias": ("none",),
    "lora_bias": (False,),
    "fan_in_fan_out": (False,),
    "rank_pattern": ({},),
    "alpha_pattern": ({},),
    "layer_replication": (),
    "megatron_config": (),
    "target_parameters": ([],),
    "trainable_token_indices": (),
    "alora_invocation_tokens": (),
}
#: How PEFT calls what a model is for, by the end of its architecture's name.
_TASKS = {
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
}


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter as a directory holds it.

    Attributes:
        directory: where it was read from.
        base: the model that it adapts.
        scale: of the product of its matrices.
        tensors: by their names on the Hub.
    """

    directory: Path
    base: Path
    scale: float
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Raises:
        UserError: a damaged file, no LoRA, a setting that is not supported, a base model that is not found.
        """
        path = directory / hub.ADAPTER
        settings = hub.read_json(path)
        if settings.get("peft_type") != "LORA":
            raise UserError(f"{path} is of peft_type {settings.get('peft_type')!r}: only LORA is read")
        for key, unused in _UNUSED.items():
            if settings.get(key) not in (None, *unused):
                raise UserError(f"{path}: {key} is {settings[key]!r}, which is not supported")
        rank, alpha = settings.get("r"), settings.get("lora_alpha")
        if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
            raise UserError(f"{path}: r is {rank!r} and lora_alpha {alpha!r}, they must be numbers")
        scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
        tensors = hub.read_tensors(directory / hub.ADAPTER_WEIGHTS)
        for name in tensors:
            if not name.startswith(_PREFIX):
                raise UserError(
                    f"{directory / hub.ADAPTER_WEIGHTS}: the tensor {name!r} is not one of an adapter's"
                )
        named = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        return cls(directory, hub.base_of(directory), scale, named)

    def config(self) -> dict[str, Any]:
        """What config.json says of the adapted model: the adapter's own, or its base's with as many labels as the
        adapter's head has outputs."""
        if (self.directory / hub.CONFIG).is_file():
            return hub.read_json(self.directory / hub.CONFIG)
        return hub.read_json(self.base / hub.CONFIG) | self._labels()

    def _labels(self) -> dict[str, Any]:
        outputs = [
            len(tensor)
            for name, tensor in self.tensors.items()
            if name.endswith(("classifier.bias", "out_proj.bias"))
        ]
        return hub.label_entries([f"LABEL_{number}" for number in range(outputs[0])]) if outputs else {}

    @torch.no_grad()
    def apply(self, model: PretrainedModel) -> None:
        """Add the adapter's products to a model's weights and put its heads in place.

        Raises:
            UserError: the adapter adapts a layer that the model lacks, or one of another shape.
        """
        left = {_stem(name): tensor for name, tensor in self.tensors.items()}
        for name, parameter in model.named_parameters():
            on_hub = _stem(model.hub_name(name))
            owner = on_hub.removesuffix(".weight")
            if (a := left.pop(owner + _A, None)) is not None:
                b = left.pop(owner + _B, None)
                if b is None or (len(b), a.shape[1]) != tuple(parameter.shape) or len(a) != b.shape[1]:
                    raise self._unfit(owner)
                parameter.add_(b.to(parameter.dtype) @ a.to(parameter.dtype), alpha=self.scale)
            elif (whole := left.pop(on_hub, None)) is not None:
                if whole.shape != parameter.shape:
                    raise self._unfit(owner)
                parameter.copy_(whole)
        for name in left:
            if name.endswith((_A, _B)):
                raise self._unfit(name.removesuffix(_A).removesuffix(_B))

    def _unfit(self, layer: str) -> UserError:
        return UserError(
            f"{self.directory} adapts the layer {layer!r}, which {self.base} has not in that shape"
        )


def write_adapter(model: PretrainedModel, directory: Path, base: str) -> None:
    """Write what was trained of an adapted model.

    Args:
        base: the directory or Hub name of the model that was adapted.

    Raises:
        ValueError: the model has no adapted layer.
    """
    layers = adapted(model)
    if not layers:
        raise ValueError("no layer of the model is adapted")
    one = next(iter(layers.values()))
    state = model.state_dict()
    tensors = {}
    for name in layers:
        on_hub = _hub_module(model, name)
        tensors[f"{_PREFIX}{on_hub}{_A}"] = state[f"{name}.lora_a"]
        tensors[f"{_PREFIX}{on_hub}{_B}"] = state[f"{name}.lora_b"]
    heads = [name for name in state if model.is_head(name)]
    tensors |= {_PREFIX + model.hub_name(name): state[name] for name in heads}
    architecture = model.hub_architecture
    task = next((task for end, task in _TASKS.items() if architecture.endswith(end)), None)
    settings = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "r": one.rank,
        "lora_alpha": one.alpha,
        "lora_dropout": one.dropout.rate,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": _targets(model, list(layers)),
        "modules_to_save": sorted({model.hub_name(name).split(".")[0] for name in heads}) or None,
    }
    hub.write_weights(directory / hub.ADAPTER_WEIGHTS, tensors)
    hub.write_json(directory / hub.ADAPTER, settings)
    hub.write_json(directory / hub.CONFIG, model.config.to_hub() | {"architectures": [architecture]})


def _targets(model: PretrainedModel, names: list[str]) -> list[str]:
    """How PEFT is told which layers are adapted: by the ends of their names where those leave no doubt."""
    modules = {_hub_module(model, name) for name in names}
    ends = {name.rpartition(".")[2] for name in modules}
    everything = {
        _hub_module(model, name) for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    meant = {name for name in everything if name.rpartition(".")[2] in ends}
    return sorted(ends if meant == modules else modules)


def _hub_module(model: PretrainedModel, name: str) -> str:
    return model.hub_name(f"{name}.weight").removesuffix(".weight")


def _stem(name: str) -> str:
    for backbone in _BACKBONES:
        name = name.removeprefix(backbone)
    return name
