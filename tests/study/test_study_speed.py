# SPDX-License-Identifier: Apache-2.0
"""Tables 5, 6 and 9: what follows from their cells, in floating point by the formulas of `pennyweight.money`."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest

from pennyweight import money, study, use_cases
from pennyweight.study import recompute, recompute_speed
from pennyweight.study.tables import Printed, Row

CASES = [case.name for case in use_cases.STUDY]
QUANTIZED = [row for number in (5, 6) for row in study.table(number).rows if row.scheme != "BF16"]


def value(row: Row, column: str) -> float:
    cell = row.cells[column]
    assert cell is not None
    return cell.value


def name(row: Row) -> str:
    return "-".join(row.keys[key] for key in ("size", "gpu", "gpus", "scheme"))


def price(row: Row) -> float:
    return money.study_prices().per_hour(row.keys["gpu"], int(row.keys["gpus"]))


@pytest.mark.parametrize("row", QUANTIZED[:12], ids=name)
def test_cost_reduction_is_recomputed(row: Row) -> None:
    baseline = study.table(5).baseline(row)
    assert baseline

    def costs(of: Row) -> list[float]:
        return [
            money.cost_per_1k_queries(
                money.queries_per_dollar_sync(value(of, f"{case}.latency_s"), price(of))
            )
            for case in CASES
        ]

    found = money.cost_reduction(costs(baseline), costs(row))
    assert found == pytest.approx(value(row, "cost_reduction"), abs=0.02)


@pytest.mark.parametrize("row", QUANTIZED[12:], ids=name)
def test_speedup_is_recomputed(row: Row) -> None:
    """From throughputs; on 16 GPUs, where these have one digit, from the queries per USD, which have more."""
    table = study.table(6)
    baseline = table.baseline(row)
    assert baseline
    quantity = "queries_per_dollar" if row.keys["gpus"] == "16" else "throughput_qps"
    columns = [f"{case}.{quantity}" for case in CASES]
    found = money.speedup([value(baseline, c) for c in columns], [value(row, c) for c in columns])
    off = abs(found - value(row, "speedup"))
    assert (off > 0.06) == bool(table.erratum(row, "speedup")), found


def test_every_number_of_the_speed_tables_is_checked() -> None:
    """7 queries per USD in each of 36 rows, 3 plausible lengths in each, and 24 improvements."""
    checks = list(recompute_speed.checks())
    assert len(checks) == 36 * 7 + 36 * 3 + 24
    assert sum(check.against == "Table 9" for check in checks) == 252


def test_errata_are_those_known() -> None:
    found = [
        (c.table.name, c.column) for c in study.disagreements() if c.table.name in ("Table 5", "Table 6")
    ]
    costs = [("Table 6", f"{case}.queries_per_dollar") for case in CASES]
    assert sorted(found) == sorted(
        [
            *(("Table 5", "docstring-generation.latency_s"),) * 5,
            *(("Table 6", "docstring-generation.throughput_qps"),) * 3,
            *costs * 3,
            ("Table 6", "speedup"),
        ]
    )


@pytest.mark.parametrize(
    ("number", "column", "text"),
    [
        (5, "rag.latency_s", "7.0"),
        (5, "rag.queries_per_dollar", "400"),
        (5, "cost_reduction", "2.80"),
        (6, "rag.throughput_qps", "4.6"),
        (6, "rag.queries_per_dollar", "2.4k"),
        (6, "speedup", "1.80"),
    ],
)
def test_a_changed_cell_is_seen(number: int, column: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digit of the row of 70B at INT4 on A100, changed, contradicts another number."""
    real = study.table(number)
    row = real.row(size="70B", gpu="A100", scheme="W4A16-INT")
    changed = dataclasses.replace(row, cells={**row.cells, column: Printed(text)})
    table = dataclasses.replace(real, rows=tuple(changed if r is row else r for r in real.rows))
    tables = {which: table if which == number else study.table(which) for which in (5, 6)}
    monkeypatch.setattr(recompute_speed, "table", tables.__getitem__)
    wrong = [c for c in recompute_speed.checks() if c.agrees == c.declared]
    assert wrong and all(check.row is changed for check in wrong)


def test_thousands_keep_their_digits() -> None:
    assert (Printed("6.8k").value, Printed("6.8k").half_unit) == (6800.0, Fraction(50))
    assert recompute.rounded(Printed("0.7k")).low == 650
