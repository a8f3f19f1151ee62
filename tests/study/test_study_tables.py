# SPDX-License-Identifier: Apache-2.0
"""The study's tables: what they hold, that they follow from each other, and that the errata are the exceptions."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import pytest

from pennyweight import study
from pennyweight.errors import UnsupportedError
from pennyweight.study import recompute
from pennyweight.study.tables import DATA, SCHEMA

TABLES = [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13]
CHECKS = recompute.checks()


def test_tables_kept() -> None:
    assert study.names() == ["Figure 1", *(f"Table {n}" for n in TABLES)]


@pytest.mark.parametrize("name", study.names())
def test_table_is_whole(name: str) -> None:
    table = study.table(name)
    assert table.name == name and table.source.startswith("arXiv 2411.02355") and table.source.endswith(name)
    for row in table.rows:
        assert list(row.cells) == [column.key for column in table.columns]
        assert all(
            cell is None or cell.value == float(cell.text.replace("k", "e3")) for cell in row.cells.values()
        )
    keys = [tuple(row.keys.values()) for row in table.rows]
    assert len(set(keys)) == len(keys)
    for erratum in table.errata:
        assert sum(row.matches(erratum.keys) for row in table.rows) == 1, erratum


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_data_has_this_schema_and_no_other_key(path: object) -> None:
    raw = json.loads(DATA.joinpath(str(path)).read_text())
    assert raw["schema"] == SCHEMA
    assert set(raw) == {"schema", "name", "title", "source", "remarks", "columns", "rows", "errata"}


@pytest.mark.parametrize(
    ("number", "keys", "column", "text"),
    [
        (1, {"size": "70B", "method": "AWQ"}, "mbpp", "80.8"),
        (2, {"size": "8B", "scheme": "W4A16-INT"}, "truthfulqa", "52.8"),
        (3, {"size": "405B", "scheme": "BF16"}, "math_hard", "38.9"),
        (4, {"model": "DeepSeek-R1-Distill-Qwen-1.5B", "scheme": "W4A16-INT"}, "aime24", "24.6 ± 5.1"),
        (5, {"size": "70B", "gpu": "A100", "scheme": "BF16"}, "code-fixing.latency_s", "51.2"),
        (5, {"size": "405B", "gpu": "H100", "scheme": "W4A16-INT"}, "summarization.queries_per_dollar", "14"),
        (6, {"size": "8B", "scheme": "W8A8-INT"}, "rag.queries_per_dollar", "27.6k"),
        (6, {"size": "405B", "gpu": "A100", "scheme": "W4A16-INT"}, "rag.throughput_qps", "2.8"),
        (7, {"size": "405B", "scheme": "W8A8-INT"}, "ci_low", "-2.4"),
        (10, {"size": "8B", "scheme": "W8A8-INT"}, "gsm8k", "102.42"),
        (11, {"size": "8B", "scheme": "W8A8-FP"}, "gpqa", "155.98"),
        (12, {"size": "8B", "method": "AWQ"}, "truthfulqa", "52.81"),
        (13, {"size": "70B", "method": "GPTQ"}, "mmlu_pro", "47.25"),
    ],
)
def test_cell_is_as_printed(number: int, keys: dict[str, str], column: str, text: str) -> None:
    assert str(study.table(number).row(**keys).cells[column]) == text


def test_what_is_not_printed_is_none() -> None:
    table = study.table(3)
    empty = [(row.size, key) for row in table.rows for key, cell in row.cells.items() if cell is None]
    assert empty == [("405B", "ruler")] * 4


@pytest.mark.parametrize(("name", "against"), sorted({(c.table.name, c.against) for c in CHECKS}))
def test_numbers_follow_or_are_declared(name: str, against: str) -> None:
    """An undeclared exception fails, and so does a declared one that agrees."""
    wrong = [
        str(c) for c in CHECKS if (c.table.name, c.against) == (name, against) and c.agrees == c.declared
    ]
    assert not wrong


def test_each_erratum_is_a_check() -> None:
    found = [(c.table.name, e) for c in study.disagreements() for e in c.table.erratum(c.row, c.column)]
    declared = [(name, erratum) for name in study.names() for erratum in study.table(name).errata]
    assert sorted(found, key=str) == sorted(declared, key=str)


@pytest.mark.parametrize(("number", "cells"), [(10, 63), (11, 54)])
def test_every_task_recovery_is_recomputed(number: int, cells: int) -> None:
    source = {10: "Table 2", 11: "Table 3"}[number]
    checks = [c for c in CHECKS if c.table.name == f"Table {number}" and c.against == source]
    assert len({(*c.row.keys.values(), c.column) for c in checks}) == len(checks) == cells
    assert all(check.agrees for check in checks)


def test_interval_arithmetic_by_hand() -> None:
    printed = recompute.rounded(study.Printed("68.3"))
    assert (printed.low, printed.high) == (Fraction("68.25"), Fraction("68.35"))
    whole = recompute.rounded(study.Printed("2"))
    assert recompute.mean([whole, recompute.Interval(Fraction(3), Fraction(4))]) == recompute.Interval(
        Fraction("2.25"), Fraction("3.25")
    )
    ratio = recompute.recovery(
        recompute.Interval(Fraction(1), Fraction(2)), recompute.Interval(Fraction(4), Fraction(5))
    )
    assert (ratio.low, ratio.high) == (20, 50)


@pytest.mark.parametrize(("text", "agrees"), [("98.72", True), ("98.96", False), ("98.46", False)])
def test_a_changed_cell_is_seen(text: str, agrees: bool) -> None:
    """Table 2's recovery of 8B at INT4 is 98.72 by averages printed to 0.01: a quarter of a point is far off."""
    (check,) = [
        c for c in CHECKS if c.table.name == "Table 2" and c.column == "recovery"
        and c.row.keys == {"model": "Llama-3.1-8B-Instruct", "size": "8B", "scheme": "W4A16-INT"}
    ]  # fmt: skip
    assert dataclasses.replace(check, printed=recompute.rounded(study.Printed(text))).agrees is agrees


def test_unknown_table_and_row_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="Table 8 is not kept here; kept are Figure 1, Table 1"):
        study.table(8)
    with pytest.raises(UnsupportedError, match="Table 2: 4 rows have"):
        study.table(2).row(size="8B")


def test_table_shows_itself() -> None:
    table = study.table(3)
    text = str(table)
    assert text.startswith("Table 3: ") and "57.0*" in text and "are swapped" in text
    page = table._repr_html_()
    assert page.count("<tr>") == 13 and "56.3*" in page
