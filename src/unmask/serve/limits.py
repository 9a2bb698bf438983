"""What a request may ask for, and how many may wait."""

from __future__ import annotations

from dataclasses import dataclass, fields

from unmask.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds of the service.

    Attributes:
        queue: texts and results of a model that may wait; requests that would make it more get 503.
        requests: under /v1/ that are read or answered at the same time, of all models; more get 503. Their bodies
            take `requests` times `body_bytes` at most.
        rows: results that a T5 writes side by side, and texts that are answered together.
        batch_tokens: tokens of the running batch, read and to be written, every row counted as long as the longest;
            its keys and values are in proportion to it.
        piece_tokens: tokens that are read between two steps of writing: others wait no longer than that takes.
        body_bytes: of a request's body.
        body_seconds: in which a body must have come.
        characters: of all texts of a request, before any is tokenised.
        source_tokens: of one text.
        new_tokens: that one result may have.
        inputs: texts of a request, its results counted.
        seconds: that a request may take, waiting included.

    Raises:
        UserError: one that is not above 0, or more inputs than may wait.
    """

    queue: int = 256
    requests: int = 512
    rows: int = 64
    batch_tokens: int = 32_768
    piece_tokens: int = 2048
    body_bytes: int = 1 << 20
    body_seconds: float = 30.0
    characters: int = 200_000
    source_tokens: int = 2048
    new_tokens: int = 512
    inputs: int = 64
    seconds: float = 120.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise UserError(f"{field.name}={getattr(self, field.name)} must be above 0")
        if self.inputs > self.queue:
            raise UserError(f"inputs={self.inputs} can never be accepted with queue={self.queue}: lower it")
