"""What low precision costs, as tables and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unmask.export.cost import Cost
from unmask.export.quantization import Quantization
from unmask.report import (
    Block,
    Cell,
    Column,
    Estimate,
    Heading,
    KeyFacts,
    Page,
    Paragraph,
    Sample,
    Samples,
    Table,
    write_page,
)

#: Differing texts that a page shows.
SHOWN = 20


def cost_table(found: Quantization) -> Table:
    """A line for each model that was measured."""
    texts = found.costs[0].chrf is not None
    rows: list[Sequence[Cell]] = []
    for cost in found.costs:
        # What compares float32 with itself stays blank.
        compared = cost is not found.costs[0]
        cells = _text_cells(cost, compared) if texts else _prediction_cells(cost, compared)
        rows.append([cost.name, *_loss_cells(cost, compared), *cells])
    counted = f", {found.units:,} {found.unit}s; loss in nats a {found.unit}" if found.units else ""
    columns: list[Column | str] = ["model", *_LOSS, *(_TEXT if texts else _PREDICTION)]
    return Table(f"{found.rows:,} rows{counted}", columns, rows)


_LOSS = [Column("loss", decimals=4, numeric=True), Column("change [95 %]", decimals=4, numeric=True)]
_TEXT = [
    Column("chrF, targets", numeric=True),
    Column("same text", numeric=True),
    Column("chrF, float32's text", numeric=True),
]
_PREDICTION = [Column("same prediction", numeric=True), Column("change of the logits", numeric=True)]


def _loss_cells(cost: Cost, compared: bool) -> list[Cell]:
    loss = cost.loss
    if loss is None:
        return [None, None]
    return [loss.loss, Estimate(loss.change, loss.low, loss.high) if compared else None]


def _text_cells(cost: Cost, compared: bool) -> list[Cell]:
    return [cost.target_chrf, *([f"{cost.identical:.1%}", cost.chrf] if compared else [None, None])]


def _prediction_cells(cost: Cost, compared: bool) -> list[Cell]:
    if not compared or cost.logits is None:
        return [None, None]
    return [f"{cost.identical:.1%}", f"{cost.logits:.2%}"]


def product_table(found: Quantization, shown: int | None = None) -> Table:
    """What int8 costs each product by itself, the largest first.

    Args:
        shown: how many; None: all.
    """
    rows: list[Sequence[Cell]] = [
        (
            product.name,
            None if product.error is None else f"{product.error:.2%}",
            "bfloat16" if product.kept else "int8",
        )
        for product in found.products[:shown]
    ]
    return Table(
        f"What int8 loses of each product's output, {len(rows)} of {len(found.products)}",
        ["product", Column("lost", numeric=True), "stored as"],
        rows,
    )


def difference_table(found: Quantization, shown: int) -> Table:
    """Texts that are not float32's."""
    rows = [
        (difference.float32, difference.written, difference.target)
        for difference in found.differences[:shown]
    ]
    return Table(
        f"Texts that differ, {len(rows)} of {len(found.differences)}",
        ["float32", found.dtype, "target"],
        rows,
    )


def tables(found: Quantization, shown: int) -> list[Table]:
    """What a terminal shows: the cost, and so many products and differing texts."""
    wanted = [cost_table(found)]
    if found.products:
        wanted.append(product_table(found, shown))
    if found.differences:
        wanted.append(difference_table(found, shown))
    return wanted


def size_line(found: Quantization) -> str:
    """How much smaller the weights are."""
    before, after = found.float32_bytes / 1e6, found.bytes / 1e6
    return f"{before:,.1f} MB in float32, {after:,.1f} MB in {found.dtype} ({after / before:.0%})"


def differing(found: Quantization, shown: int) -> Samples:
    """Texts that are not float32's, with float32's and the target as references."""
    return Samples(
        f"{min(shown, len(found.differences))} of the {len(found.differences)} texts that differ: "
        "float32's is the first reference, the target the second",
        [
            Sample(difference.source, difference.written, [difference.float32, difference.target])
            for difference in found.differences[:shown]
        ],
    )


def write_report(path: Path, found: Quantization) -> None:
    """The page of a measured quantisation."""
    blocks: list[Block] = [
        KeyFacts([("model", found.model), ("weights", size_line(found))]),
        Heading("What it costs"),
        cost_table(found),
        Paragraph(
            "The change of the loss is over the same rows, with its 95 % paired bootstrap interval. Texts are "
            "written as generation_config.json says."
        ),
    ]
    if found.differences:
        blocks += [Heading("Texts that differ"), differing(found, SHOWN)]
    if found.products:
        blocks += [
            Heading("Product by product"),
            Paragraph(
                "Each product is given the activations of the float32 model: the error is what int8 adds there, "
                "as a share of the output's size, not what has added up before."
            ),
            product_table(found),
        ]
    write_page(path, Page(f"{Path(found.model).name} in {found.dtype}", blocks))
