# SPDX-License-Identifier: Apache-2.0
"""Holding the study's latencies, throughputs and what they cost against each other and against its prices.

Queries per USD follow from Table 9, cost reduction and speedup from the cells of their own row and its BF16 row. A
latency or throughput follows from no other, but the same answer to a longer prompt cannot take less time, nor more
than by the square of the lengths: attention is the steepest part of the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from pennyweight import money, use_cases
from pennyweight.study.intervals import Check, Interval, mean, rounded
from pennyweight.study.tables import Row, Table, table

#: What two measurements of the same differ by.
NOISE = Fraction(2, 100)
#: Use case → those with as long an answer and another prompt that it is held against.
NEIGHBOURS = {
    "docstring-generation": ("instruction-following", "rag"),
    "rag": ("instruction-following",),
    "code-fixing": ("code-completion",),
}


def checks() -> Iterator[Check]:
    """Yield every check of Tables 5 and 6."""
    for number, quantity, factor in ((5, "latency_s", "cost_reduction"), (6, "throughput_qps", "speedup")):
        here = table(number)
        for row in here.rows:
            for case in use_cases.STUDY:
                printed = _cell(row, f"{case.name}.queries_per_dollar")
                yield Check(
                    here, row, f"{case.name}.queries_per_dollar", "Table 9", printed,
                    queries_per_dollar(row, quantity, case.name),
                )  # fmt: skip
            for name in NEIGHBOURS:
                column = f"{name}.{quantity}"
                yield Check(here, row, column, here.name, _cell(row, column), plausible(row, quantity, name))
            if row.scheme != "BF16":
                yield Check(here, row, factor, here.name, _cell(row, factor), improvement(here, row))


def queries_per_dollar(row: Row, quantity: str, case: str) -> Interval:
    """Return what queries per USD can be, from the row's own latency or throughput and Table 9."""
    cell, price = _cell(row, f"{case}.{quantity}"), _price(row)
    if quantity == "latency_s":
        return Interval(3600 / (cell.high * price), 3600 / (cell.low * price))
    return Interval(3600 * cell.low / price, 3600 * cell.high / price)


def improvement(here: Table, row: Row) -> Interval:
    """Return what cost reduction (Table 5) or speedup (Table 6) can be: the mean over use cases of ratios to BF16."""
    baseline = here.baseline(row)
    assert baseline is not None  # both tables have BF16 everywhere
    ratio = _cheaper if here.name == "Table 5" else _faster
    return mean([ratio(row, baseline, case.name) for case in use_cases.STUDY])


def plausible(row: Row, quantity: str, case: str) -> Interval:
    """Return what a latency or throughput can be, given those of the other prompt lengths in its row."""
    bounds = [_beside(row, quantity, case, other) for other in NEIGHBOURS[case]]
    return Interval(max(b.low for b in bounds), min(b.high for b in bounds))


def _beside(row: Row, quantity: str, case: str, other: str) -> Interval:
    cell = _cell(row, f"{other}.{quantity}")
    longer = Fraction(use_cases.use_case(case).prefill, use_cases.use_case(other).prefill)
    ends = (min(Fraction(1), longer**2), max(Fraction(1), longer**2))
    if quantity == "throughput_qps":
        ends = (1 / ends[1], 1 / ends[0])
    return Interval(cell.low * ends[0] * (1 - NOISE), cell.high * ends[1] * (1 + NOISE))


def _cheaper(row: Row, baseline: Row, case: str) -> Interval:
    """Cost per query at BF16 over that of the row; from latencies, whose digits are more than the queries'."""
    prices = _price(baseline) / _price(row)
    ratio = _ratio(_cell(baseline, f"{case}.latency_s"), _cell(row, f"{case}.latency_s"))
    return Interval(ratio.low * prices, ratio.high * prices)


def _faster(row: Row, baseline: Row, case: str) -> Interval:
    """Throughput over that at BF16, or the same of queries per USD where more of their digits are printed."""
    columns = (f"{case}.throughput_qps", f"{case}.queries_per_dollar")
    return min(
        (_ratio(_cell(row, column), _cell(baseline, column)) for column in columns),
        key=lambda ratio: ratio.high - ratio.low,
    )


def _ratio(above: Interval, below: Interval) -> Interval:
    return Interval(above.low / below.high, above.high / below.low)


def _price(row: Row) -> Fraction:
    """Of the row's machine, USD an hour; Table 9's cents, exactly."""
    return Fraction(round(money.study_prices().per_hour(row.keys["gpu"], int(row.keys["gpus"])) * 100), 100)


def _cell(row: Row, column: str) -> Interval:
    cell = row.cells[column]
    assert cell is not None  # no cell of these tables is empty but the improvement of BF16
    return rounded(cell)
