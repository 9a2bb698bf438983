"""A model in low precision, and what that costs, measured on a sample."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from unmask import hub
from unmask.electra.pair import GENERATOR
from unmask.errors import UserError
from unmask.export.card import write_export_card
from unmask.export.cost import Cost, Difference, Sample, Subject
from unmask.export.electra_measurement import MODELS, ElectraSubject
from unmask.export.place import check_place, new_directory
from unmask.export.product_errors import product_errors
from unmask.export.t5_measurement import T5Subject
from unmask.nn import stored_int8
from unmask.nn.pretrained import PretrainedModel
from unmask.settings import nearest
from unmask.t5.config import KINDS

LowPrecision = Literal["int8", "bfloat16"]

#: The report's numbers, in the directory of the model that they are about.
NUMBERS = "quantization.json"
#: What tells a directory written here from any other model's.
SIGNS = (hub.WEIGHTS, NUMBERS)

#: A product that loses more than this share of its output to int8 stays bfloat16, where nothing else is said.
KEEP_ABOVE = 0.05

#: T5s whose output is no text.
_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "EncoderModel")


@dataclass(frozen=True)
class Product:
    """One of a model's matrix products.

    Attributes:
        error: the share of its output that int8 loses (see `product_errors`); None: not measured.
        kept: whether it stays bfloat16.
    """

    name: str
    error: float | None
    kept: bool


@dataclass(frozen=True)
class Quantization:
    """What was written, and what it costs.

    Attributes:
        float32_bytes, bytes: of the weights, before and after.
        products: of an int8 model, those that lose most first.
        rows: how many were measured; 0 without a sample.
        unit, units: what the loss is a mean over, and how many of those there were; 0 without targets.
        costs: float32 first, what was written last.
        differences: the rows whose text is not float32's.
    """

    model: str
    dtype: LowPrecision
    float32_bytes: int
    bytes: int
    products: Sequence[Product]
    rows: int
    unit: str
    units: int
    costs: Sequence[Cost]
    differences: Sequence[Difference]


def quantize(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: LowPrecision = "int8",
    sample: Sample | None = None,
    keep: Sequence[str] = (),
    keep_above: float | None = None,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Quantization:
    """Write a model in low precision, whole or not at all, with its tokenizer and the numbers of what that costs.

    Args:
        model: a model directory or Hub name: a T5 that writes, an ELECTRA that classifies texts or tokens, or a
            discriminator.
        dtype: int8 directories are read by unmask alone, bfloat16 ones also by Transformers.
        sample: what to measure on; None: nothing is measured.
        keep: products, or linear layers in them, that stay bfloat16 in an int8 model; `*` stands for any part
            of a name.
        keep_above: so do products that lose more than this share of their output on the sample; None: 0.05.
        overwrite: replace an earlier result of this function.
        say: is told what is being done.

    Raises:
        UserError: no such model, one of another kind or that is int8 already, a name in `keep` that nothing
            has, options that do nothing, a place that is taken.
    """
    place = Path(out).expanduser()
    check_place(place, overwrite=overwrite, signs=SIGNS)
    _check_options(dtype, sample is not None, keep, keep_above)
    say("loading")
    directory = hub.find_model(model)
    subject = _subject(directory, sample)
    wide = subject.load("float32")
    before = sum(tensor.nbytes for tensor in wide.hub_state().values())
    if dtype == "bfloat16":
        found = _in_bfloat16(subject, wide, say)
    else:
        found = _in_int8(subject, wide, keep, KEEP_ABOVE if keep_above is None else keep_above, say)
    say("writing")
    with new_directory(place, overwrite=overwrite, signs=SIGNS) as temporary:
        found.model.save_pretrained(temporary)
        subject.save_tokenizer(temporary)
        result = Quantization(
            str(model),
            dtype,
            before,
            (temporary / hub.WEIGHTS).stat().st_size,
            found.products,
            subject.rows,
            subject.unit,
            subject.units,
            found.costs,
            found.differences,
        )
        hub.write_json(temporary / NUMBERS, asdict(result))
        _write_card(temporary, place.name, result, directory, type(found.model).__name__)
    return result


def _write_card(temporary: Path, name: str, found: Quantization, directory: Path, kind: str) -> None:
    kept = sum(product.kept for product in found.products)
    size = f"{found.bytes / 1e6:,.1f} MB, in float32 {found.float32_bytes / 1e6:,.1f} MB"
    products = [("products that stay bfloat16", f"{kept} of {len(found.products)}")] if found.products else []
    last = found.costs[-1] if found.costs else None
    checks = (
        [("rows", str(found.rows)), ("outputs that are float32's", f"{last.identical:.1%}")] if last else []
    )
    if last and last.loss is not None:
        loss = last.loss
        change = f"{loss.loss:.4f}, by {loss.change:+.4f} ({loss.low:+.4f} to {loss.high:+.4f}) off float32's"
        checks.append((f"loss in nats a {found.unit}", change))
    write_export_card(
        temporary,
        found.model,
        directory,
        form=f"{found.dtype} weights",
        library="unmask",
        facts=[("weights", found.dtype), ("size", size), *products],
        checks=checks,
        use=f'from unmask import {kind}\n\nmodel = {kind}.from_pretrained("{name}")',
        limits=[]
        if last
        else ["What the lower precision costs was not measured (unmask quantize --on FILE)."],
    )


@dataclass(frozen=True)
class _Narrowed:
    """A model in low precision, and what was found on the way."""

    model: PretrainedModel
    products: Sequence[Product] = ()
    costs: Sequence[Cost] = ()
    differences: Sequence[Difference] = ()


def _in_bfloat16(subject: Subject, wide: PretrainedModel, say: Callable[[str], object]) -> _Narrowed:
    narrow = subject.load("bfloat16")
    if not subject.rows:
        return _Narrowed(narrow)
    say("measuring float32")
    exact = subject.measure(wide)
    say("measuring bfloat16")
    measured = subject.measure(narrow)
    costs = [subject.cost("float32", exact, exact), subject.cost("bfloat16", measured, exact)]
    return _Narrowed(narrow, (), costs, subject.differences(measured, exact))


def _in_int8(
    subject: Subject,
    wide: PretrainedModel,
    keep: Sequence[str],
    threshold: float,
    say: Callable[[str], object],
) -> _Narrowed:
    """The model in int8, which takes the place of the float32 one, but for what is named or loses too much."""
    wide.fold()
    kept = _matching(wide, keep)
    if not subject.rows:
        products = _listed(wide, {}, kept)
        return _Narrowed(_kept_in(wide, kept), products)
    say("measuring each product in int8")
    with product_errors(wide) as errors:
        subject.watch(wide)
    say("measuring float32")
    exact = subject.measure(wide)
    kept |= {product for product, error in errors.items() if error > threshold}
    products = _listed(wide, errors, kept)
    costs = [subject.cost("float32", exact, exact)]
    name = "int8"
    if kept:
        say("measuring int8 throughout")
        throughout = subject.measure(copy.deepcopy(wide).quantize())
        costs.append(subject.cost("int8 throughout", throughout, exact))
        name = f"int8, {len(kept)} of {len(products)} products in bfloat16"
    narrow = _kept_in(wide, kept)
    say(f"measuring {name}")
    measured = subject.measure(narrow)
    costs.append(subject.cost(name, measured, exact))
    return _Narrowed(narrow, products, costs, subject.differences(measured, exact))


def _kept_in(model: PretrainedModel, products: set[str]) -> PretrainedModel:
    layers = model.products()
    return model.quantize(keep=[layers[product][0] for product in products])


def _matching(model: PretrainedModel, patterns: Sequence[str]) -> set[str]:
    """The products that the patterns name, by themselves or by a layer of theirs."""
    products, found = model.products(), set()
    for pattern in patterns:
        named = {
            product
            for product, layers in products.items()
            if any(fnmatchcase(name, pattern) for name in (product, *layers))
        }
        if not named:
            raise UserError(f"keep {pattern!r}: the model has no such product{nearest(pattern, products)}")
        found |= named
    return found


def _listed(model: PretrainedModel, errors: Mapping[str, float], kept: set[str]) -> list[Product]:
    found = [Product(name, errors.get(name), name in kept) for name in model.products()]
    return sorted(found, key=lambda product: -(product.error or 0.0))


def _check_options(dtype: str, sampled: bool, keep: Sequence[str], keep_above: float | None) -> None:
    if dtype == "bfloat16" and (keep or keep_above is not None):
        raise UserError("keep and keep_above say what stays bfloat16 in an int8 model: leave them out")
    if keep_above is not None and not sampled:
        raise UserError(f"keep_above={keep_above} needs a sample to measure on: give one (--on)")
    if keep_above is not None and not keep_above >= 0:
        raise UserError(f"keep_above={keep_above} must be a share of an output's size, 0 or more")


def _subject(directory: Path, sample: Sample | None) -> Subject:
    """Raises:
    UserError: a model that is not measured here, or that is int8 already.
    """
    if (directory / GENERATOR).is_dir():
        raise UserError(
            f"{directory} is a pair: load it in Python, ElectraForConditionalGeneration.from_pretrained(…, "
            'dtype="int8"), and call save_pretrained'
        )
    config = hub.read_json(directory / hub.CONFIG)
    if stored_int8.is_marked(config, str(directory / hub.CONFIG)):
        raise UserError(f"{directory} is int8 already: quantise the model that it was made from")
    kind, architecture = config.get("model_type"), str((config.get("architectures") or [""])[0])
    if kind in KINDS and not architecture.endswith(_HEADS):
        return T5Subject(directory, sample)
    if architecture in MODELS:
        return ElectraSubject(directory, architecture, sample)
    raise UserError(
        f"{directory} holds {architecture or f'a model of type {kind!r}'}, of which no predictions are measured: "
        'load it in Python with dtype="int8" and call save_pretrained'
    )
