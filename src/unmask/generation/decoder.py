"""What a model must offer to be decoded from."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """A model in the middle of decoding a batch of rows, each with a cache of the tokens it was fed."""

    @property
    def rows(self) -> int: ...

    def step(self, ids: Tensor) -> Tensor:
        """Feed one token to each row, (rows,) → the next token's logits, (rows, vocabulary) float32.

        The next call may overwrite them.
        """

    def advance(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Feed several tokens at once.

        Args:
            ids: (rows, n) int64.
            lengths: (rows,) int64, how many of the n tokens each row has, at least 1; None: all of them.

        Returns:
            (rows, n, vocabulary) float32: the logits behind each token; behind a row's length they mean
            nothing. The next call may overwrite them.
        """

    def rewind(self, lengths: Tensor) -> None:
        """Keep the first `lengths` (rows,) tokens of each row's cache; rows may differ."""

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order: (kept,) int64, repeats allowed."""
