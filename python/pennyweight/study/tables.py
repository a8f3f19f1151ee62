# SPDX-License-Identifier: Apache-2.0
"""Reading the tables. A cell keeps its printed digits: "54.50" says more than 54.5."""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pennyweight.errors import UnsupportedError
from pennyweight.grid import aligned, html_table

DATA = Path(__file__).parent / "data"
#: Of the files' keys.
SCHEMA = 1


@dataclass(frozen=True)
class Printed:
    """A number as it was printed.

    Attributes:
        text: Its digits; "6.8k" is 6800.
        spread: Digits of the ± beside it; None where there is none.
    """

    text: str
    spread: str | None = None

    @property
    def value(self) -> float:
        return float(self.exact)

    @property
    def exact(self) -> Fraction:
        """What its digits say, as a fraction."""
        return Fraction(self.text.removesuffix("k")) * self._unit

    @property
    def half_unit(self) -> Fraction:
        """Half of its last digit's unit: how far rounding can have moved it."""
        digits = self.text.removesuffix("k").partition(".")[2]
        return Fraction(self._unit, 2 * 10 ** len(digits))

    @property
    def _unit(self) -> int:
        return 1000 if self.text.endswith("k") else 1

    def __str__(self) -> str:
        return self.text if self.spread is None else f"{self.text} ± {self.spread}"


@dataclass(frozen=True)
class Column:
    """One column: `key` in the cells, `title` as a reader sees it, `unit` ("score" is 0 to 100)."""

    key: str
    title: str
    unit: str


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        keys: What the row is about: model, size ("8B"), scheme ("BF16" or as `pw.scheme`), and method ("GPTQ",
            "AWQ"), gpu ("A100") and gpus (how many) where the table has them.
        cells: By column; None where nothing is printed.
    """

    keys: Mapping[str, str]
    cells: Mapping[str, Printed | None]

    @property
    def model(self) -> str:
        return self.keys["model"]

    @property
    def size(self) -> str:
        return self.keys["size"]

    @property
    def scheme(self) -> str:
        return self.keys["scheme"]

    def matches(self, keys: Mapping[str, str]) -> bool:
        return all(self.keys.get(key) == value for key, value in keys.items())


@dataclass(frozen=True)
class Erratum:
    """A printed number that another one contradicts.

    Attributes:
        keys: Of the row, as in `Row.keys`.
        column: Key of the column.
        against: The table that contradicts it.
        note: What is known about it.
    """

    keys: Mapping[str, str]
    column: str
    against: str
    note: str


@dataclass(frozen=True)
class Table:
    """A table of the study. Shows itself in a terminal and in a notebook."""

    name: str
    title: str
    source: str
    remarks: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    errata: tuple[Erratum, ...]

    def row(self, **keys: str) -> Row:
        """Return the one row with these keys, for instance ``row(size="8B", scheme="BF16")``.

        Raises:
            UnsupportedError: No row or more than one has them.
        """
        found = [row for row in self.rows if row.matches(keys)]
        if len(found) != 1:
            have = "; ".join(" ".join(row.keys.values()) for row in found or self.rows)
            raise UnsupportedError(
                f"{self.name}: {len(found)} rows have {keys}; give the keys of one of: {have}"
            )
        return found[0]

    def baseline(self, row: Row) -> Row | None:
        """Return the BF16 row of the same model (and GPU, where the table has them); None where there is none."""
        about = {key: row.keys[key] for key in ("model", "gpu") if key in row.keys}
        return next((r for r in self.rows if r.matches(about) and r.scheme == "BF16"), None)

    def erratum(self, row: Row, column: str) -> list[Erratum]:
        """Return what is known to be wrong with a cell."""
        return [e for e in self.errata if e.column == column and row.matches(e.keys)]

    def _grid(self) -> list[list[str]]:
        keys = list(dict.fromkeys(key for row in self.rows for key in row.keys))
        grid = [[*keys, *(column.title for column in self.columns)]]
        for row in self.rows:
            cells = [
                _shown(row.cells[c.key]) + ("*" if self.erratum(row, c.key) else "") for c in self.columns
            ]
            grid.append([*(row.keys.get(key, "-") for key in keys), *cells])
        return grid

    def _notes(self) -> list[str]:
        told = dict.fromkeys(f"* against {e.against}: {e.note}" for e in self.errata)
        return [*told, *self.remarks, f"Source: {self.source}"]

    def __str__(self) -> str:
        grid = self._grid()
        lines = aligned(grid, left=range(len(grid[0])))
        return "\n".join([f"{self.name}: {self.title}", *lines, *self._notes()])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self._notes())
        return f"<p>{html.escape(f'{self.name}: {self.title}')}</p>{html_table(self._grid())}<ul>{notes}</ul>"


def names() -> list[str]:
    """Return the names of all that is kept, for instance "Table 2"."""
    kinds = sorted((path.stem.split("_") for path in DATA.glob("*.json")), key=lambda p: (p[0], int(p[1])))
    return [f"{kind.capitalize()} {number}" for kind, number in kinds]


def table(which: int | str) -> Table:
    """Return a table of the study by its number or name.

    Args:
        which: 2, "Table 2" or "Figure 1".
    Raises:
        UnsupportedError: It is not kept; the text lists those that are.
    """
    name = f"Table {which}" if isinstance(which, int) else which
    if name not in names():
        raise UnsupportedError(f"the study's {name} is not kept here; kept are {', '.join(names())}")
    return _read(name)


@functools.cache
def _read(name: str) -> Table:
    file = DATA / (name.lower().replace(" ", "_") + ".json")
    raw: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return Table(
        name=raw["name"],
        title=raw["title"],
        source=raw["source"],
        remarks=tuple(raw["remarks"]),
        columns=tuple(Column(**column) for column in raw["columns"]),
        rows=tuple(_row(row, [column["key"] for column in raw["columns"]]) for row in raw["rows"]),
        errata=tuple(_erratum(erratum) for erratum in raw["errata"]),
    )


def _row(raw: dict[str, Any], columns: list[str]) -> Row:
    spread = raw.get("spread", {})
    cells = {
        column: None if raw["cells"][column] is None else Printed(raw["cells"][column], spread.get(column))
        for column in columns
    }
    return Row({key: value for key, value in raw.items() if key not in ("cells", "spread")}, cells)


def _erratum(raw: dict[str, str]) -> Erratum:
    own = ("column", "against", "note")
    return Erratum(
        {key: value for key, value in raw.items() if key not in own}, **{key: raw[key] for key in own}
    )


def _shown(cell: Printed | None) -> str:
    return "-" if cell is None else str(cell)
