"""`unmask export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def ct2(
    model: str,
    /,
    *,
    out: Path,
    dtype: Literal["float32", "bfloat16", "int8"] = "float32",
    overwrite: bool = False,
) -> None:
    """Write a T5 as a model directory of CTranslate2.

    Args:
        model: a model directory or Hub name.
        out: the directory to write.
        dtype: how the weights are stored.
        overwrite: replace an earlier export.
    """
    from unmask.export.ct2 import export

    export(model, out, dtype=dtype, overwrite=overwrite)
    print(out)


def onnx(
    model: str,
    /,
    *,
    out: Path,
    dtype: Literal["float32", "int8"] = "float32",
    overwrite: bool = False,
) -> None:
    """Write a T5 or an ELECTRA as ONNX graphs, checked in ONNX Runtime.

    Args:
        model: a model directory or Hub name.
        out: the directory to write.
        dtype: how the weights of matrix products are stored.
        overwrite: replace an earlier export.
    """
    from rich.console import Console

    from unmask.export.onnx import export

    with Console(stderr=True).status("") as status:
        found = export(model, out, dtype=dtype, overwrite=overwrite, say=status.update)
    print(found.summary())
    print(out)


def transformers(model: str, /, *, out: Path, overwrite: bool = False) -> None:
    """Write a model as a plain directory of Transformers.

    Args:
        model: a model directory or Hub name.
        out: the directory to write.
        overwrite: replace an earlier export.
    """
    from unmask.export.transformers import export

    found = export(model, out, overwrite=overwrite)
    print(f"{found.architecture}: {found.auto_class}.from_pretrained and AutoTokenizer.from_pretrained")
    print(out)
