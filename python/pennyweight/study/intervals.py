# SPDX-License-Identifier: Apache-2.0
"""Arithmetic on printed numbers, and one of them beside what it must be.

A printed number stands for all that round to it: 68.3 for [68.25, 68.35]. What is computed from printed numbers is
therefore an interval too, and a printed result agrees if the two intervals meet. Fractions, so that nothing is lost
at their ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pennyweight.study.tables import Printed, Row, Table


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, both included."""

    low: Fraction
    high: Fraction

    def meets(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"[{float(self.low):.7g}, {float(self.high):.7g}]"


def rounded(cell: Printed) -> Interval:
    """Return all numbers that may have been printed as `cell`."""
    return Interval(cell.exact - cell.half_unit, cell.exact + cell.half_unit)


def mean(parts: Sequence[Interval]) -> Interval:
    """Return what the mean of the parts can be."""
    low, high = (
        sum(ends, Fraction()) / len(parts) for ends in zip(*((p.low, p.high) for p in parts), strict=True)
    )
    return Interval(low, high)


def recovery(quantized: Interval, baseline: Interval) -> Interval:
    """Return what 100 · quantized / baseline can be, both positive."""
    return Interval(100 * quantized.low / baseline.high, 100 * quantized.high / baseline.low)


@dataclass(frozen=True)
class Check:
    """One printed number beside what it must be.

    Attributes:
        table, row, column: Where it is printed.
        against: The table that it follows from, or must repeat.
        printed: What it stands for.
        expected: What it can be by the other.
    """

    table: Table
    row: Row
    column: str
    against: str
    printed: Interval
    expected: Interval

    @property
    def agrees(self) -> bool:
        return self.printed.meets(self.expected)

    @property
    def declared(self) -> bool:
        """Whether the table's errata have it."""
        return any(e.against == self.against for e in self.table.erratum(self.row, self.column))

    def __str__(self) -> str:
        return (
            f"{self.table.name}, {' '.join(self.row.keys.values())}, {self.column}: printed "
            f"{self.row.cells[self.column]}, {self.expected} by {self.against}"
        )
