# SPDX-License-Identifier: Apache-2.0
"""The rows of a run, and the files that keep them: results/<machine>.json, one row a line, sorted.

A run may measure a part: its rows take the place of older ones of the same op, implementation or peer, and sizes. Every
row has the date and the commit that it was measured at. Whole models have a list of their own, "models".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def key(row: Row) -> tuple[Any, ...]:
    """Return what a row is about."""
    return row["op"], row.get("impl", ""), row.get("peer", ""), row["N"], row["K"], row["M"]


def side(row: Row) -> str:
    """Name who did it: the implementation, or "peer:" and its name."""
    return row.get("impl") or "peer:" + row["peer"]


def merge(
    old: dict[str, Any], about: dict[str, Any], limits: dict[str, float], rows: list[Row]
) -> dict[str, Any]:
    """Put a run into a result file's content; what other benchmarks keep there stays."""
    stamped = [{**row, "date": about["date"], "commit": about["commit"]} for row in rows]
    kept = {key(row): row for row in [*old.get("rows", []), *stamped]}
    return {**old, "schema": 2, "about": about, "limits": limits, "rows": [kept[k] for k in sorted(kept)]}


def save(path: Path, about: dict[str, Any], limits: dict[str, float], rows: list[Row], keep: bool) -> None:
    """Write a run to a file.

    Args:
        path: The file.
        about: date, commit, machine, threads and versions.
        limits: Of the run.
        rows: Its rows.
        keep: Whether what is there already stays.
    """
    _write(path, merge(_read(path, keep), about, limits, rows))


def save_models(path: Path, about: dict[str, Any], rows: list[Row], keep: bool) -> None:
    """Write whole models' rows to a file, in place of older ones.

    Args:
        path: The file.
        about: date, commit, machine, threads and versions.
        rows: Of bench_model.py.
        keep: Whether the other benchmarks' rows stay that are there already.
    """
    old = _read(path, keep) or {"schema": 2, "about": about, "limits": {}, "rows": []}
    versions = {name: about[name] for name in ("date", "commit", "torch")}
    _write(path, {**old, "models": [{**row, **versions} for row in rows]})


def _read(path: Path, keep: bool) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text()) if keep and path.exists() else {}
    return read


def _write(path: Path, result: dict[str, Any]) -> None:
    """Write lists of rows last and a row a line."""
    lists = [(name, result[name]) for name in ("models", "rows") if name in result]
    text = json.dumps({k: v for k, v in result.items() if k not in dict(lists)}, indent=1)[:-2]
    for name, rows in lists:
        text += f',\n "{name}": [\n' + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n}\n")


def geometric_mean(values: list[float]) -> float:
    """Return it; all values must be positive."""
    return math.exp(sum(map(math.log, values)) / len(values))


def slower_than_larger(rows: list[Row], slack: float = 0.05) -> list[str]:
    """List where one of our implementations takes longer for fewer tokens than for more, beyond a slack on medians."""
    out = []
    series: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.get("impl") not in (None, "reference"):
            series.setdefault(key(row)[:-1], []).append(row)
    by_m: Callable[[Row], int] = lambda row: row["M"]  # noqa: E731
    for of in series.values():
        of.sort(key=by_m)
        for i, few in enumerate(of[:-1]):
            many = min(of[i + 1 :], key=lambda row: row["median_us"])
            if few["median_us"] > (1 + slack) * many["median_us"]:
                out.append(
                    f"{few['op']} {few['impl']} {few['N']}x{few['K']}: M={few['M']} takes {few['median_us']:.0f} us, "
                    f"M={many['M']} {many['median_us']:.0f} us"
                )
    return out
