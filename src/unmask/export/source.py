"""What a directory holds that is to be exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from unmask import hub
from unmask.electra.pair import DISCRIMINATOR, GENERATOR
from unmask.errors import UserError


@dataclass(frozen=True)
class Source:
    """A directory with one model.

    Attributes:
        directory: where it is.
        config: what config.json says.
    """

    directory: Path
    config: Mapping[str, Any]

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Raises:
        UserError: a pair, which is two models; an adapter, which is none by itself; a damaged config.json.
        """
        if (directory / GENERATOR).is_dir():
            halves = " or ".join(str(directory / half) for half in (DISCRIMINATOR, GENERATOR))
            raise UserError(f"{directory} is a pair: export one of its models, {halves}")
        if hub.is_adapter(directory):
            raise UserError(
                f"{directory} is an adapter: make a model of it first (unmask convert), and export that"
            )
        return cls(directory, hub.read_json(directory / hub.CONFIG))

    @property
    def kind(self) -> str:
        """The model_type."""
        return str(self.config.get("model_type"))

    @property
    def architecture(self) -> str:
        """The Hub's name of the class; empty where config.json has none."""
        return str((self.config.get("architectures") or [""])[0])

    def __str__(self) -> str:
        return f"{self.directory} ({self.architecture or self.kind})"
