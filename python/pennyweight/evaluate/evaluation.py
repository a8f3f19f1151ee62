# SPDX-License-Identifier: Apache-2.0
"""What a run found, as it shows itself: a table per suite, in a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pennyweight.evaluate import results
from pennyweight.evaluate.suites import SUITES
from pennyweight.grid import aligned, html_table

#: Version of the keys of `Evaluation.to_dict`.
VERSION = 1


@dataclass
class Evaluation:
    """Results of a run; each is what OUT/<model>.json holds.

    Attributes:
        baseline: The baseline's; None where there was none.
        models: Of each model, in order.
        shown: Suites that the tables show, those of this run; the results hold earlier runs' too. Empty: all.
    """

    baseline: dict[str, Any] | None
    models: list[dict[str, Any]]
    shown: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Return the suites' results of the model of that name."""
        found = {result["model"]["name"]: result["suites"] for result in self._all()}
        suites: dict[str, Any] = found[name]
        return suites

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON; each model's as its file has it."""
        return {
            "version": VERSION,
            "baseline": None if self.baseline is None else results.sealed(self.baseline),
            "models": [results.sealed(model) for model in self.models],
        }

    def __str__(self) -> str:
        return "\n\n".join(
            "\n".join([title, *aligned(rows), *notes]) for title, rows, notes in self._tables()
        )

    def _repr_html_(self) -> str:
        return "".join(_html(title, rows, notes) for title, rows, notes in self._tables())

    def _all(self) -> list[dict[str, Any]]:
        return [*([self.baseline] if self.baseline else []), *self.models]

    def _tables(self) -> Iterator[tuple[str, list[list[str]], list[str]]]:
        """Yield each suite's title, rows (the head first) and notes."""
        for name in self.shown or dict.fromkeys(name for result in self._all() for name in result["suites"]):
            ran = [(r["model"]["name"], r["suites"][name]) for r in self._all() if name in r["suites"]]
            metrics = _columns(name, [suite for _, suite in ran])
            compared = self.baseline is not None
            extra = ["recovery", "difference", "p", "verdict"] if compared else []
            rows = [["model", *metrics, *extra]]
            for model, suite in ran:
                cells = [_cell(suite["metrics"].get(metric)) for metric in metrics]
                rows.append([model, *cells, *(_compared(suite) if compared else [])])
            yield name, _filled(rows), _notes(ran)


def _columns(name: str, suites: list[dict[str, Any]]) -> list[str]:
    present = dict.fromkeys(
        key
        for suite in suites
        for key, value in suite["metrics"].items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    )
    wanted = SUITES[name].columns if name in SUITES else ()
    return [key for key in wanted if key in present] if wanted else list(present)


def _compared(suite: dict[str, Any]) -> list[str]:
    recovery, pairs = suite["recovery"], suite["pairs"]
    cells = [_interval(recovery, "value") + (" %" if recovery else "")]
    if pairs is None:
        return [*cells, "", "", ""]
    return [*cells, _interval(pairs, "difference"), _cell(pairs["mcnemar_p"]), pairs["verdict"]]


def _interval(value: dict[str, Any] | None, key: str) -> str:
    if value is None:
        return ""
    if value["low"] is None:
        return _cell(value[key])
    return f"{_cell(value[key])} [{_cell(value['low'])}, {_cell(value['high'])}]"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _filled(rows: list[list[str]]) -> list[list[str]]:
    """Leave out columns that are empty in every row."""
    kept = [i for i in range(len(rows[0])) if i == 0 or any(row[i] for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def _notes(ran: list[tuple[str, dict[str, Any]]]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for model, suite in ran:
        for note in [*(["partial result"] if suite["partial"] else []), *suite["notes"]]:
            notes.setdefault(note, []).append(model)
    return [note if len(by) == len(ran) else f"{', '.join(by)}: {note}" for note, by in notes.items()]


def _html(title: str, rows: list[list[str]], notes: list[str]) -> str:
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"<h4>{html.escape(title)}</h4>{html_table(rows)}<ul>{listed}</ul>"
