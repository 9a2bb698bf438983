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
