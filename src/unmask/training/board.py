"""A run's log for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unmask.errors import UserError


class Board:
    """Writes what the metrics log gets into DIRECTORY/tensorboard as well.

    Numbers are scalars called KIND/NAME, messages and samples are texts. A continued run takes back what was written
    after its checkpoint.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, directory: Path, first: int) -> None:
        """Args:
        first: the step after which the run continues; 0: from the beginning.
        """
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(directory / "tensorboard", purge_step=first + 1 if first else None)

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, str):
                self._writer.add_text(f"{kind}/{name}", value, step)
            elif isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


def check_installed() -> None:
    """Raises:
    UserError: TensorBoard is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise UserError("--tensorboard needs TensorBoard: pip install 'unmask[tensorboard]'") from None
