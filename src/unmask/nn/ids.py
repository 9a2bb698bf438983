"""Ids and labels as a caller gives them, checked before they reach a table: an index error there names nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.errors import UserError

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_batch(name: str, ids: Tensor) -> None:
    """Refuse what is no batch of ids.

    Args:
        name: what the caller knows them by.
        ids: (batch, length) whole numbers, at least one.

    Raises:
        UserError: anything else.
    """
    if not isinstance(ids, Tensor):
        raise UserError(f"{name} is a {type(ids).__name__}: give a tensor (batch, length) of token ids")
    if ids.dtype not in _WHOLE:
        raise UserError(f"{name} is of {ids.dtype}, token ids are whole numbers: give torch.int64")
    if ids.dim() != 2:
        way_out = f": a single text is {name}[None]" if ids.dim() == 1 else ""
        raise UserError(f"{name} has the shape {tuple(ids.shape)}, not (batch, length){way_out}")
    if not ids.numel():
        raise UserError(
            f"{name} is empty, {tuple(ids.shape)}: give at least one text with at least one token"
        )


def check_range(name: str, values: Tensor, size: int, limit: str = "vocab_size") -> None:
    """Refuse numbers that a table has no row for.

    Args:
        values: whole numbers, at least one.
        size: rows of the table; limit: what the model's config calls it.

    Raises:
        UserError: one that is below 0 or not below `size`.
    """
    low, high = (int(end) for end in values.aminmax())
    if low < 0 or high >= size:
        cause = ": the tokenizer is another model's" if limit == "vocab_size" else ""
        raise UserError(
            f"{name} holds {low if low < 0 else high}, the model knows 0 to {size - 1} ({limit}){cause}"
        )


def check_labels(labels: Tensor, logits: Tensor, ignored: int = -100) -> Tensor:
    """Labels that name classes, as (rows,) int64.

    Args:
        labels: as many as there are rows, whole numbers below `classes`, or `ignored`.
        logits: (rows, classes).

    Raises:
        UserError: anything else.
    """
    if labels.dtype not in _WHOLE:
        raise UserError(f"labels is of {labels.dtype}, classes are whole numbers: give torch.int64")
    rows, classes = logits.shape
    check_count("labels", labels, rows)
    known = labels[labels != ignored]
    if known.numel():
        check_range("labels", known, classes, "classes")
    return labels.flatten().long()


def check_count(name: str, values: Tensor, wanted: int) -> None:
    """Raises:
    UserError: another number of values than is wanted.
    """
    if values.numel() != wanted:
        raise UserError(f"{name} has the shape {tuple(values.shape)}, not one for each of {wanted} outputs")
