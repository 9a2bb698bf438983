"""T5 and ELECTRA as ONNX graphs, float32 or int8, checked in ONNX Runtime before they take their place."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from unmask import hub
from unmask.electra.heads import ELECTRAS
from unmask.electra.model import ElectraBackbone
from unmask.electra.tokenizer import ElectraTokenizer
from unmask.errors import MissingExtraError, UserError
from unmask.export.card import write_export_card
from unmask.export.onnx_check import LONGEST, TEXTS, TOLERANCE, Check, check_electra, check_t5, check_t5_head
from unmask.export.onnx_graphs import T5_HEADS, Graph, electra_graph, t5_graphs, t5_head_graph
from unmask.export.place import check_place, new_directory
from unmask.export.source import Source
from unmask.t5.byte_tokenizer import load_tokenizer
from unmask.t5.config import KINDS
from unmask.t5.model import T5Backbone, T5ForConditionalGeneration
from unmask.t5.writing import encode_with_end
from unmask.text.tokenizer import Tokenizer

#: What an export says of itself.
RECORD = "onnx.json"
#: The oldest set of operators that has all that is traced, and that ONNX Runtime has known since 1.15 (2023).
OPSET = 17

#: Bytes of a file of ONNX, a protocol buffer, which holds 2 GiB at most; the weights of a larger one lie beside it.
FILE_LIMIT = 2_000_000_000

StoredType = Literal["float32", "int8"]


@dataclass(frozen=True)
class OnnxExport:
    """What was written.

    Attributes:
        model: what it was made from, as it was named.
        architecture: the Hub's name of it.
        dtype: of the weights of matrix products; everything else is float32.
        files: the graphs.
        float32, int8: beside PyTorch's float32 model; int8 is None in a float32 export.
    """

    model: str
    architecture: str
    dtype: StoredType
    files: list[str]
    float32: Check
    int8: Check | None

    def summary(self) -> str:
        """A line for each check, for a terminal."""
        found = {"float32": self.float32, "int8": self.int8}
        return "\n".join(f"{name}: {check.summary()}" for name, check in found.items() if check is not None)


def export(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: StoredType = "float32",
    overwrite: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> OnnxExport:
    """Write a model as ONNX graphs with its tokenizer and config.json, whole or not at all.

    A T5 that writes becomes encoder.onnx and decoder.onnx (`t5_graphs`), an ELECTRA with its head, and a T5 with one,
    model.onnx (`electra_graph`, `t5_head_graph`). The float32 graphs are run by ONNX Runtime on a few texts: logits
    must be PyTorch's to 1e-4 of the largest, and a T5 must write the same ids greedily. int8 is made from them by ONNX
    Runtime's dynamic quantisation (weights of matrix products, a scale for each output channel, 7 bits so that no
    processor's products saturate; inputs as they come), and measured on the same texts.

    Args:
        model: a model directory or Hub name: a T5 or an ELECTRA, with or without a head.
        dtype: how the weights of matrix products are stored.
        overwrite: replace an earlier export.
        say: is told what is being done.

    Raises:
        UserError: no such model, one of another kind, a place that is taken, graphs that compute something else.
        MissingExtraError: onnx or ONNX Runtime is not installed.
    """
    place = Path(out).expanduser()
    check_place(place, overwrite=overwrite, signs=(RECORD,))
    _require()
    directory = hub.find_model(model)
    subject = _subject(directory)
    with new_directory(place, overwrite=overwrite, signs=(RECORD,)) as temporary:
        say("tracing")
        wide = temporary / "float32"
        wide.mkdir()
        for graph in subject.graphs:
            _trace(graph, wide)
        say("checking")
        exact = subject.check(wide)
        _refuse_others(exact, subject.architecture)
        narrow = None
        if dtype == "int8":
            say("quantising")
            for graph in subject.graphs:
                _quantize(wide / f"{graph.name}.onnx", temporary)
            narrow = subject.check(temporary)
        else:
            for path in list(wide.iterdir()):
                path.rename(temporary / path.name)
        shutil.rmtree(wide)
        files = sorted(path.name for path in temporary.iterdir())
        subject.save_rest(temporary)
        result = OnnxExport(str(model), subject.architecture, dtype, files, exact, narrow)
        hub.write_json(temporary / RECORD, asdict(result))
        _write_card(temporary, place.name, result, directory, subject.graphs)
    return result


def _write_card(
    temporary: Path, name: str, found: OnnxExport, directory: Path, graphs: Sequence[Graph]
) -> None:
    uses = [
        f'{graph.name} = onnxruntime.InferenceSession("{name}/{graph.name}.onnx")\n'
        f"# {_listed([*graph.example])} → {_listed(graph.outputs)}"
        for graph in graphs
    ]
    checks = {"float32": found.float32, "int8": found.int8}
    write_export_card(
        temporary,
        found.model,
        directory,
        form="ONNX graphs",
        library="onnx",
        facts=[
            ("architecture", found.architecture),
            ("weights of matrix products", found.dtype),
            ("operators", f"opset {OPSET}"),
            ("files", ", ".join(found.files)),
        ],
        checks=[(name, check.summary()) for name, check in checks.items() if check is not None],
        use="\n".join(["import onnxruntime", "", *uses]),
        limits=[
            f"{found.float32.texts} texts find a wrong graph; what a change costs on a task they do not say."
        ],
    )


def _listed(names: Sequence[str]) -> str:
    """Names of tensors, of caches the first alone."""
    kept = [name for name in names if "." not in name or name.endswith(".0")]
    return ", ".join(name.replace(".0", ".N") for name in kept)


@dataclass(frozen=True)
class _Subject:
    architecture: str
    graphs: list[Graph]
    check: Callable[[Path], Check]
    #: Writes tokenizer and configs.
    save_rest: Callable[[Path], None]


def _subject(directory: Path) -> _Subject:
    """Raises:
    UserError: a model that is not exported.
    """
    source = Source.of(directory)
    if source.architecture in ELECTRAS:
        return _electra(directory, source.architecture)
    if source.kind in KINDS and source.architecture.endswith("ForConditionalGeneration"):
        return _t5(directory, source.architecture)
    for end, kind in T5_HEADS.items():
        if source.kind in KINDS and source.architecture.endswith(end):
            return _t5_with_head(directory, source.architecture, kind)
    raise UserError(f"{source}: ONNX is written of T5 and of {', '.join(ELECTRAS)}")


def _t5(directory: Path, architecture: str) -> _Subject:
    model = T5ForConditionalGeneration.from_pretrained(directory, dtype="float32")
    tokenizer = load_tokenizer(directory)
    rows = encode_with_end(tokenizer, TEXTS, LONGEST)

    def save_rest(place: Path) -> None:
        _save_rest(place, model, tokenizer, architecture)
        hub.write_json(place / hub.GENERATION_CONFIG, model.generation_config)

    return _Subject(architecture, t5_graphs(model), lambda place: check_t5(model, place, rows), save_rest)


def _t5_with_head(directory: Path, architecture: str, kind: type[T5Backbone]) -> _Subject:
    model = kind.from_pretrained(directory, dtype="float32")
    tokenizer = load_tokenizer(directory)
    rows = encode_with_end(tokenizer, TEXTS, LONGEST)
    graph = t5_head_graph(model)

    def check(place: Path) -> Check:
        return check_t5_head(model, place / f"{graph.name}.onnx", rows, graph.outputs)

    return _Subject(
        architecture, [graph], check, lambda place: _save_rest(place, model, tokenizer, architecture)
    )


def _electra(directory: Path, architecture: str) -> _Subject:
    model = ELECTRAS[architecture].from_pretrained(directory, dtype="float32")
    tokenizer = ElectraTokenizer.from_pretrained(directory)
    longest = min(LONGEST, model.config.max_position_embeddings)
    rows = tokenizer(list(TEXTS), truncation=True, max_length=longest)["input_ids"]
    graph = electra_graph(model)

    def check(place: Path) -> Check:
        return check_electra(model, place / f"{graph.name}.onnx", rows, graph.outputs)

    return _Subject(
        architecture, [graph], check, lambda place: _save_rest(place, model, tokenizer, architecture)
    )


def _save_rest(
    place: Path, model: T5Backbone | ElectraBackbone, tokenizer: Tokenizer, architecture: str
) -> None:
    """What stands beside the graphs of every model."""
    tokenizer.save_pretrained(place)
    hub.write_json(place / hub.CONFIG, model.config.to_hub() | {"architectures": [architecture]})


def _refuse_others(check: Check, architecture: str) -> None:
    if not check.largest <= TOLERANCE:
        raise UserError(
            f"{architecture} in ONNX Runtime differs from PyTorch by {check.largest:.1e} of the largest logit, more "
            f"than {TOLERANCE:.0e}: nothing was written"
        )
    if architecture.endswith("ForConditionalGeneration") and check.same != 1.0:
        raise UserError(
            f"{architecture} in ONNX Runtime writes other texts than PyTorch: nothing was written"
        )


def _trace(graph: Graph, directory: Path) -> None:
    """The tracer that needs no more than torch and onnx; what it warns of, sizes in Python, are kept open by us."""
    import onnx

    name = f"{graph.name}.onnx"
    with tempfile.TemporaryDirectory(dir=directory) as traced:
        path = Path(traced) / name
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                # The tracer gives the mode back that it finds here, to all parts of the model.
                graph.module.eval(),
                tuple(graph.example.values()),
                path,
                input_names=list(graph.example),
                output_names=graph.outputs,
                dynamic_axes=graph.axes,
                opset_version=OPSET,
                dynamo=False,
            )
        if _size(Path(traced)) <= FILE_LIMIT:
            path.rename(directory / name)
            return
        # The tracer gives each weight of a large graph a file of its own: one for all is enough.
        whole = onnx.load(path)
        onnx.save_model(whole, directory / name, save_as_external_data=True, location=f"{name}.data")


def _size(directory: Path) -> int:
    """Bytes of a directory's files."""
    return sum(path.stat().st_size for path in directory.iterdir())


def _quantize(path: Path, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            path,
            out / path.name,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["MatMul"],
            use_external_data_format=_size(path.parent) > FILE_LIMIT,
            extra_options={"MatMulConstBOnly": True},
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's advice to preprocess is for other graphs than ours, and goes to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        raise MissingExtraError("ONNX", "export") from None
