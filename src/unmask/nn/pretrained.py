"""What every model shares: being made from a config, saved to and loaded from the Hub's layout."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from unmask import hub
from unmask.errors import UserError
from unmask.nn import lora, stored_int8
from unmask.nn.adapter_files import Adapter, write_adapter
from unmask.nn.kept import Bfloat16Linear, keep_linears
from unmask.nn.linear import QuantizedLinear, quantize_linears
from unmask.settings import nearest

logger = logging.getLogger("unmask")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Not a type of the parameters: int8 is made from float32 weights (`PretrainedModel.quantize`) or stored, for
#: inference.
INT8 = "int8"


class Config(Protocol):
    """A family's config: a dataclass that reads and writes the Hub's `config.json`."""

    @classmethod
    def from_hub(cls, values: Mapping[str, Any], where: str) -> Self: ...

    def to_hub(self) -> dict[str, Any]: ...


class PretrainedModel(nn.Module):
    """A module with a config, whose weights have the Hub's names on disk and a reader's names inside.

    A subclass gives the class attributes below and `initialise`, which draws fresh weights in place.
    """

    config_class: ClassVar[type[Config]]
    #: The name that Transformers knows this model by, written into config.json as its architecture.
    architecture: ClassVar[str]
    #: Prefixes (names inside) of parameters that a checkpoint may lack, because a new task starts with them.
    fresh_heads: ClassVar[tuple[str, ...]] = ()
    config: Any

    @staticmethod
    def hub_name(name: str) -> str:
        """The name on disk of a parameter of this model."""
        raise NotImplementedError

    @classmethod
    def prepare(cls, config: Any, weights: dict[str, Tensor]) -> Any:
        """Last look at a checkpoint before its model is made: drop copies, settle what the config left open.

        Args:
            weights: tensors by their names on disk, changed in place.

        Returns:
            The config to build.
        """
        return config

    def initialise(self) -> None:
        """Draw all weights afresh, in place, from torch's global generator."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        **settings: Any,
    ) -> Self:
        """Load a model directory, a cached Hub name or a Hub name to download; ready for inference.

        An adapter (LoRA in PEFT's format) is loaded as the plain model that computes the same.

        Args:
            dtype: "float32", "bfloat16", "float16" or "int8" (see `quantize`), or a torch dtype; None: float32,
                or int8 where the directory holds int8 weights. Such weights become floating-point ones again,
                no more exact than they were, where another type is named.
            settings: fields of the config to set instead of the file's, such as a new head's labels.

        Raises:
            UserError: nothing found, a damaged file, a missing tensor, a tensor of the wrong shape, weights that
                another program quantised, a new head for an int8 model.
        """
        directory = hub.find_model(name_or_path, revision=revision)
        if hub.is_adapter(directory):
            return cls._from_adapter(Adapter.read(directory), dtype=dtype, device=device, **settings)
        where = directory / hub.CONFIG
        values = hub.read_json(where)
        stored = stored_int8.is_marked(values, str(where))
        wants_int8 = dtype in (INT8, torch.int8) or (stored and dtype is None)
        kind = torch.float32 if wants_int8 or dtype is None else parse_dtype(dtype)
        config, weights = cls.config_class.from_hub(values, str(where)), hub.read_weights(directory)
        if stored and wants_int8:
            model = cls._from_int8(config, weights, str(directory), **settings).to(device=device)
            model.after_loading(directory)
            return model.requires_grad_(False).eval()
        if stored:
            stored_int8.dequantize(weights)
        model = cls.from_weights(config, weights, str(directory), **settings)
        model.after_loading(directory)
        model = model.to(device=device, dtype=kind).eval()
        return model.quantize() if wants_int8 else model

    @classmethod
    def _from_adapter(
        cls, adapter: Adapter, *, dtype: str | torch.dtype | None, device: str | torch.device, **settings: Any
    ) -> Self:
        """The model that an adapter was learnt on, with the adapter's products in its weights."""
        base, where = adapter.base, str(adapter.directory)
        config, weights = cls.config_class.from_hub(adapter.config(), where), hub.read_weights(base)
        if stored_int8.is_marked(hub.read_json(base / hub.CONFIG), str(base)):
            stored_int8.dequantize(weights)
        model = cls.from_weights(config, weights, str(base), new_head=True, **settings)
        adapter.apply(model)
        model.after_loading(base)
        wants_int8 = dtype in (INT8, torch.int8)
        kind = torch.float32 if wants_int8 or dtype is None else parse_dtype(dtype)
        model = model.to(device=device, dtype=kind).eval()
        return model.quantize() if wants_int8 else model

    @classmethod
    def from_weights(
        cls,
        config: Any,
        weights: dict[str, Tensor],
        where: str,
        *,
        new_head: bool = False,
        **settings: Any,
    ) -> Self:
        """A float32 model of the given tensors.

        Args:
            weights: tensors by their names on disk; what the model takes is taken out.
            where: what an error says that they came from.
            new_head: a head that is missing, or of another shape, is nothing to warn of.
            settings: fields of the config to set instead, which mean a new head too.

        Raises:
            UserError: a missing tensor, a tensor of the wrong shape, an unknown setting.
        """
        config = cls.prepare(_with(config, settings), weights)
        with torch.device("meta"):
            model = cls(config)
        model._take(weights, where, new_head=new_head or bool(settings))
        return model

    @classmethod
    def _from_int8(cls, config: Any, weights: dict[str, Tensor], where: str, **settings: Any) -> Self:
        """A model of int8 weights as `save_pretrained` stored them."""
        config = cls.prepare(_with(config, settings), weights)
        with torch.device("meta"):
            model = cls(config)
            stored_int8.expect(model, lambda name: model.hub_name(name) in weights)
        model._take(weights, where, new_head=bool(settings))
        return model

    @torch.no_grad()
    def quantize(self, keep: Collection[str] = ()) -> Self:
        """Turn this float model into an int8 one, for inference alone, in place.

        Linear layers keep an int8 weight with a scale for each output channel; their inputs are quantised row
        by row as they come; embeddings, norms and everything between stay float32.

        Args:
            keep: linear layers, by their names inside, that stay bfloat16, and with them those of the same
                product (see `products`).

        Raises:
            UserError: a name that no linear layer has.
        """
        self.fold()
        keep_linears(self, self._with_fellows(keep))
        quantize_linears(self)
        return self.requires_grad_(False).eval()

    def fold(self) -> None:
        """Bring a float model into the form whose matrices `quantize` rounds, in place; it computes the same."""

    def products(self) -> dict[str, list[str]]:
        """The products that inference makes → names of the linear layers in each, which are of one precision."""
        products: dict[str, list[str]] = {}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                products.setdefault(self.product_of(name), []).append(name)
        return products

    @staticmethod
    def product_of(name: str) -> str:
        """The product that a linear layer is part of: query, key and value of one input are one."""
        parent, _, last = name.rpartition(".")
        return f"{parent}.query_key_value" if last in ("query", "key", "value") else name

    def _with_fellows(self, names: Collection[str]) -> list[str]:
        products = self.products()
        known = [name for product in products.values() for name in product]
        for name in names:
            if name not in known:
                raise UserError(f"{type(self).__name__} has no linear layer {name!r}{nearest(name, known)}")
        return [
            name for product in products.values() if not set(names).isdisjoint(product) for name in product
        ]

    def after_loading(self, directory: Path) -> None:
        """A hook for what else a directory holds, such as generation_config.json."""

    def _take(self, weights: dict[str, Tensor], where: str, *, new_head: bool) -> None:
        """Assign checkpoint tensors to this model, which is on the meta device.

        Args:
            new_head: a head of another shape than the checkpoint's is wanted, not a sign of damage.
        """
        expected = self.state_dict()
        state: dict[str, Tensor] = {}
        missing: list[str] = []
        for name, tensor in expected.items():
            found = weights.pop(self.hub_name(name), None)
            if found is None or (new_head and found.shape != tensor.shape and self.is_head(name)):
                missing.append(name)
            elif found.shape != tensor.shape:
                raise UserError(
                    f"{where}: tensor {self.hub_name(name)!r} is {tuple(found.shape)}, "
                    f"but config.json asks for {tuple(tensor.shape)}"
                )
            elif tensor.is_floating_point() and not found.is_floating_point():
                raise UserError(
                    f"{where}: tensor {self.hub_name(name)!r} is of {found.dtype}, not of floating point"
                )
            else:
                state[name] = found.to(tensor.dtype) if found.is_floating_point() else found
        fresh = [name for name in missing if self.is_head(name)]
        if fresh and self.is_int8:
            raise UserError(
                f"{where} holds int8 weights, and no {fresh[0]!r} that fits: to train a new head on them, load "
                'with dtype="float32"'
            )
        absent = [self.hub_name(name) for name in missing if name not in fresh]
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise UserError(f"{where}: the checkpoint lacks the tensor {absent[0]!r}{more}")
        if fresh:
            self._draw(fresh, state)
            # Whoever asks for a new head knows that it has to be trained.
            level = logging.INFO if new_head else logging.WARNING
            logger.log(level, "%s has no %s: drawn afresh, train before use", where, ", ".join(fresh))
        self.load_state_dict(state, assign=True)
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        if weights:
            logger.info("%s: %d tensors not used: %s", where, len(weights), ", ".join(sorted(weights)))

    def is_head(self, name: str) -> bool:
        """Whether a parameter, by its name inside, is of a head that a new task starts with."""
        return bool(self.fresh_heads) and name.startswith(self.fresh_heads)

    def _draw(self, names: list[str], state: dict[str, Tensor]) -> None:
        """Fill in parameters that the checkpoint lacks from a freshly drawn model."""
        drawn = type(self)(self.config)
        values = drawn.state_dict()
        state.update({name: values[name] for name in names})

    def add_lora(self, targets: Collection[str], *, rank: int, alpha: float, dropout: float) -> None:
        """Adapt layers by LoRA, in place: their two thin matrices, and the heads of a new task, alone will train.

        Args:
            targets: last parts of names inside, such as "query", or "all".
            rank, alpha, dropout: of the adaptation, which is scaled by alpha / rank.

        Raises:
            UserError: a target that no layer has.
        """
        lora.add_lora(self, targets, rank=rank, alpha=alpha, dropout=dropout, trained=self.is_head)

    def save_adapter(self, directory: str | os.PathLike[str], base: str) -> None:
        """Write what LoRA has learnt in PEFT's format (`unmask.nn.adapter_files`).

        Args:
            base: the directory or Hub name of the model that was adapted.
        """
        write_adapter(self, Path(directory), base)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, each beside and then renamed; adaptations by LoRA are merged.

        An int8 model's matrices are written as int8 tensors and their scales (`unmask.nn.stored_int8`), which
        unmask alone reads.
        """
        path = Path(directory)
        config = self.config.to_hub() | {"architectures": [self.hub_architecture]}
        parameters = next(self.parameters())
        config["dtype"] = str(parameters.dtype).removeprefix("torch.")
        if self.is_int8:
            config |= stored_int8.MARK
        hub.write_weights(path / hub.WEIGHTS, self.hub_state())
        hub.write_json(path / hub.CONFIG, config)

    @property
    def is_int8(self) -> bool:
        """Whether the linear layers hold int8 weights: for inference alone."""
        return any(isinstance(module, QuantizedLinear | Bfloat16Linear) for module in self.modules())

    @property
    def hub_architecture(self) -> str:
        """The class that config.json names; a family may derive it from the config."""
        return self.architecture

    def hub_state(self) -> dict[str, Tensor]:
        """This model's tensors by their names on disk."""
        return {self.hub_name(name): tensor.detach() for name, tensor in lora.merged_state(self).items()}

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def _with(config: Any, settings: Mapping[str, Any]) -> Any:
    known = [field.name for field in fields(config)]
    for name in settings:
        if name not in known:
            raise UserError(f"{type(config).__name__} has no field {name!r}{nearest(name, known)}")
    return replace(config, **settings)


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype of a name.

    Raises:
        UserError: an unknown name, or a type that no model has; the message lists the known ones.
    """
    if isinstance(dtype, torch.dtype) and dtype in (*DTYPES.values(), torch.float64):
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not one of {', '.join((*DTYPES, INT8))}")
    return DTYPES[dtype]
