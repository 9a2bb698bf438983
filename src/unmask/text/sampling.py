"""Samples and splits of documents by their content, the same in every run and on every machine."""

from __future__ import annotations

from hashlib import blake2b

from unmask.errors import UserError


def document_fraction(text: str, purpose: str) -> float:
    """A number in [0, 1), uniform over documents, that depends on the text and the purpose alone.

    Equal texts get equal numbers, so a copy never lands on the other side of a split; different purposes get
    independent ones, so a sample drawn for one purpose says nothing about a split made for another.
    """
    digest = blake2b(text.encode(), digest_size=8, person=blake2b(purpose.encode(), digest_size=16).digest())
    return int.from_bytes(digest.digest(), "little") / 2**64


def is_validation(text: str, share: float) -> bool:
    """Whether a document belongs to the validation split, when that is to hold this share of documents.

    Raising the share only ever adds documents to the split.

    Raises:
        UserError: the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise UserError(f"validation share is {share}: give a number from 0 up to 1, such as 0.01")
    return document_fraction(text, "validation split") < share
