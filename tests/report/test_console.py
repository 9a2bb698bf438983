from __future__ import annotations

import io

from rich.console import Console

from unmask.report import Column, Estimate, Table, print_table


def printed(table: Table, width: int = 100) -> list[str]:
    out = io.StringIO()
    print_table(table, Console(file=out, width=width))
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def test_a_table_reads_the_same_on_a_terminal() -> None:
    table = Table(
        "Scores",
        [
            "system",
            Column("BLEU", 1, best="highest"),
            Column("loss", 2, best="lowest"),
            Column("rows", numeric=True),
        ],
        [
            ["copy [b]it[/b]", 4.2, None, 12630],
            ["T5", Estimate(45.31, 44, 46.7), 1.2, 630],
            ["twin", 1.0, 1.2, 1],
        ],
    )
    title, header, _, *rows = printed(table)
    assert title.strip() == "Scores (* best)"
    assert header.split() == ["system", "BLEU", "loss", "rows"]
    assert rows[0].split() == ["copy", "[b]it[/b]", "4.2", "–", "12,630"]
    assert rows[1].split() == ["T5", "45.3", "[44.0,", "46.7]", "*", "1.20", "*", "630"]
    assert rows[2].split() == ["twin", "1.0", "1.20", "*", "1"]
    assert rows[0].endswith("12,630") and len(rows[0]) == len(rows[1]) == len(rows[2])


def test_numbers_are_never_cut() -> None:
    columns = ["what it is", *(Column(name, numeric=True) for name in ("documents", "characters"))]
    table = Table("t", columns, [["a text that is long", 123_456_789, 987_654_321_000]])
    assert any("123,456,789" in line and "987,654,321,000" in line for line in printed(table, 20))


def test_values_that_read_the_same_are_equally_best() -> None:
    table = Table("t", ["a", Column("x", 1, best="highest")], [["one", 1.04], ["two", 1.01], ["three", 0.9]])
    assert table.highlighted() == {(0, 1), (1, 1)}


def test_without_a_best_there_is_no_star() -> None:
    assert not any(
        "*" in line for line in printed(Table("t", ["a", Column("b", best="lowest")], [["x", None]]))
    )
