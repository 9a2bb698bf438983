"""Splits by content: stable for ever, the wanted share, copies together."""

from __future__ import annotations

import pytest

from unmask.errors import UserError
from unmask.text.sampling import document_fraction, is_validation


def test_fraction_is_pinned() -> None:
    # A published split must never change under its users.
    assert document_fraction("Hello, world!", "validation split") == pytest.approx(
        0.941409403014622, abs=1e-12
    )
    assert document_fraction("Hello, world!", "another purpose") != document_fraction(
        "Hello, world!", "validation split"
    )


def test_split_has_the_wanted_share_and_only_grows() -> None:
    texts = [f"document {i}" for i in range(20_000)]
    small = {text for text in texts if is_validation(text, 0.05)}
    large = {text for text in texts if is_validation(text, 0.1)}
    assert abs(len(small) - 1000) < 150
    assert small < large
    assert not any(is_validation(text, 0) for text in texts)


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_impossible_share(share: float) -> None:
    with pytest.raises(UserError, match="validation share"):
        is_validation("x", share)
