"""A T5 in low precision, and what that costs, measured on pairs of texts."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from unmask import hub
from unmask.errors import UserError
from unmask.export.measurement import Cost, Measured, Pairs, cost, measure
from unmask.export.place import check_place, new_directory
from unmask.export.product_errors import product_errors
from unmask.nn import stored_int8
from unmask.nn.pretrained import PretrainedModel
from unmask.settings import nearest
from unmask.t5.byte_tokenizer import AnyT5Tokenizer, load_tokenizer
from unmask.t5.config import KINDS
from unmask.t5.model import T5ForConditionalGeneration

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
class Difference:
    """A text that comes out otherwise than in float32."""

    source: str
    float32: str
    written: str
    target: str


@dataclass(frozen=True)
class Quantization:
    """What was written, and what it costs.

    Attributes:
        float32_bytes, bytes: of the weights, before and after.
        products: of an int8 model, those that lose most first.
        pairs, tokens: how many pairs and target tokens were measured; 0 without a sample.
        costs: float32 first, what was written last.
        differences: the pairs whose text is not float32's.
    """

    model: str
    dtype: LowPrecision
    float32_bytes: int
    bytes: int
    products: Sequence[Product]
    pairs: int = 0
    tokens: int = 0
    costs: Sequence[Cost] = ()
    differences: Sequence[Difference] = ()


def quantize(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: LowPrecision = "int8",
    sample: tuple[Sequence[str], Sequence[str]] | None = None,
    keep: Sequence[str] = (),
    keep_above: float | None = None,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> Quantization:
    """Write a T5 in low precision, whole or not at all, with its tokenizer and the numbers of what that costs.

    Args:
        model: a model directory or Hub name.
        dtype: int8 directories are read by unmask alone, bfloat16 ones also by Transformers.
        sample: sources and targets to measure on; None: nothing is measured.
        keep: products, or linear layers in them, that stay bfloat16 in an int8 model; `*` stands for any part
            of a name.
        keep_above: so do products that lose more than this share of their output on the sample; None: 0.05.
        overwrite: replace an earlier result of this function.
        say: is told what is being done.

    Raises:
        UserError: no such model, one that is no T5 that writes or that is int8 already, a name in `keep` that
            nothing has, options that do nothing, a place that is taken.
    """
    place = Path(out).expanduser()
    check_place(place, overwrite=overwrite, signs=SIGNS)
    _check_options(dtype, sample is not None, keep, keep_above)
    directory = hub.find_model(model)
    _check_model(directory)
    say("loading")
    tokenizer = load_tokenizer(directory)
    wide = T5ForConditionalGeneration.from_pretrained(directory, dtype="float32")
    before = sum(tensor.nbytes for tensor in wide.hub_state().values())
    pairs = None if sample is None else Pairs.of(tokenizer, *sample)
    threshold = KEEP_ABOVE if keep_above is None else keep_above
    if dtype == "bfloat16":
        narrow, products, costs, differences = _in_bfloat16(wide, directory, tokenizer, pairs, say)
    else:
        narrow, products, costs, differences = _in_int8(wide, tokenizer, pairs, keep, threshold, say)
    say("writing")
    with new_directory(place, overwrite=overwrite, signs=SIGNS) as temporary:
        narrow.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        result = Quantization(
            str(model),
            dtype,
            before,
            (temporary / hub.WEIGHTS).stat().st_size,
            products,
            0 if pairs is None else len(pairs.sources),
            0 if pairs is None else sum(len(ids) for ids in pairs.target_ids),
            costs,
            differences,
        )
        hub.write_json(temporary / NUMBERS, asdict(result))
    return result


_Found = tuple[T5ForConditionalGeneration, list[Product], list[Cost], list[Difference]]


def _in_bfloat16(
    wide: T5ForConditionalGeneration,
    directory: Path,
    tokenizer: AnyT5Tokenizer,
    pairs: Pairs | None,
    say: Callable[[str], object],
) -> _Found:
    narrow = T5ForConditionalGeneration.from_pretrained(directory, dtype="bfloat16")
    if pairs is None:
        return narrow, [], [], []
    say("measuring float32")
    exact = measure(wide, tokenizer, pairs)
    say("measuring bfloat16")
    measured = measure(narrow, tokenizer, pairs)
    costs = [cost("float32", exact, exact, pairs), cost("bfloat16", measured, exact, pairs)]
    return narrow, [], costs, _differences(measured, exact, pairs)


def _in_int8(
    wide: T5ForConditionalGeneration,
    tokenizer: AnyT5Tokenizer,
    pairs: Pairs | None,
    keep: Sequence[str],
    threshold: float,
    say: Callable[[str], object],
) -> _Found:
    """The model in int8, which takes the place of the float32 one, but for what is named or loses too much."""
    wide.fold()
    kept = _matching(wide, keep)
    if pairs is None:
        products = _listed(wide, {}, kept)
        return _kept_in(wide, kept), products, [], []
    say("measuring float32, and each product in int8")
    with product_errors(wide) as errors:
        exact = measure(wide, tokenizer, pairs)
    kept |= {product for product, error in errors.items() if error > threshold}
    products = _listed(wide, errors, kept)
    costs = [cost("float32", exact, exact, pairs)]
    name = "int8"
    if kept:
        say("measuring int8 throughout")
        throughout = measure(copy.deepcopy(wide).quantize(), tokenizer, pairs)
        costs.append(cost("int8 throughout", throughout, exact, pairs))
        name = f"int8, {len(kept)} of {len(products)} products in bfloat16"
    narrow = _kept_in(wide, kept)
    say(f"measuring {name}")
    measured = measure(narrow, tokenizer, pairs)
    costs.append(cost(name, measured, exact, pairs))
    return narrow, products, costs, _differences(measured, exact, pairs)


def _kept_in(model: T5ForConditionalGeneration, products: set[str]) -> T5ForConditionalGeneration:
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


def _differences(measured: Measured, exact: Measured, pairs: Pairs) -> list[Difference]:
    rows = zip(pairs.sources, exact.texts, measured.texts, pairs.targets, strict=True)
    return [Difference(*row) for row in rows if row[1] != row[2]]


def _check_options(dtype: str, sampled: bool, keep: Sequence[str], keep_above: float | None) -> None:
    if dtype == "bfloat16" and (keep or keep_above is not None):
        raise UserError("keep and keep_above say what stays bfloat16 in an int8 model: leave them out")
    if keep_above is not None and not sampled:
        raise UserError(f"keep_above={keep_above} needs a sample to measure on: give one (--on)")
    if keep_above is not None and not keep_above >= 0:
        raise UserError(f"keep_above={keep_above} must be a share of an output's size, 0 or more")


def _check_model(directory: Path) -> None:
    config = hub.read_json(directory / hub.CONFIG)
    where = str(directory / hub.CONFIG)
    kind, architecture = config.get("model_type"), str((config.get("architectures") or [""])[0])
    if kind not in KINDS or architecture.endswith(_HEADS):
        raise UserError(
            f"{directory} holds {architecture or f'a model of type {kind!r}'}, which writes no text: load it in "
            'Python with dtype="int8" and call save_pretrained'
        )
    if stored_int8.is_marked(config, where):
        raise UserError(f"{directory} is int8 already: quantise the model that it was made from")
