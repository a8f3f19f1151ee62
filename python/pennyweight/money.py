# SPDX-License-Identifier: Apache-2.0
"""What queries cost: prices of machines, and the study's formulas on latency and throughput.

    from pennyweight import money
    price = money.study_prices().per_hour("a100", 2)            # 3.58 USD an hour
    money.queries_per_dollar_sync(50.7, price)                  # one query at a time, 50.7 s each: 19.8
    money.queries_per_dollar_async(1.4, price)                  # 1.4 queries a second: 1408
    money.cost_per_1k_queries(19.8)                             # 50.5 USD

Formulas as the study's Tables 5 and 6 follow from their own cells: queries per dollar are 3600 / (latency · price) for
one query at a time and 3600 · throughput / price for many; cost reduction and speedup are means, over use cases, of
ratios to BF16.
"""

from __future__ import annotations

import datetime
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pennyweight.errors import MeasurementError
from pennyweight.json_file import read_json

#: Of the keys of a file of prices.
SCHEMA = 1


@dataclass(frozen=True)
class Prices:
    """Prices of machines.

    Attributes:
        machines: By GPU ("a100"; "cpu" for a machine without), by number of GPUs: USD an hour for all of them.
        source: Whose prices they are.
        date: When they held, ISO 8601; None: not known.
        flat: USD an hour of one GPU of any kind; None: only what `machines` has.
    """

    machines: Mapping[str, Mapping[int, float]]
    source: str
    date: str | None = None
    flat: float | None = None

    def per_hour(self, gpu: str, gpus: int = 1) -> float:
        """Return the price of `gpus` GPUs together, USD an hour.

        A number that is not in the table costs its share of the next larger machine; beyond the largest one, as many
        of those as are needed.

        Raises:
            MeasurementError: The table does not have this GPU; the text has the nearest names.
        """
        if not isinstance(gpus, int) or gpus < 1:
            raise MeasurementError(f"number of GPUs must be a whole number, 1 or more; got {gpus!r}")
        if self.flat is not None:
            return self.flat * gpus
        table = self.machines.get(gpu.lower())
        if table is None:
            known = sorted(self.machines)
            near = difflib.get_close_matches(gpu.lower(), known, cutoff=0.5) or known
            raise MeasurementError(
                f"no price of {gpu} ({self.source}); it has {', '.join(near)}: give one with --price, USD an hour"
            )
        largest = max(table)
        whole, rest = divmod(gpus, largest)
        price = whole * table[largest]
        if rest:
            size = min(count for count in table if count >= rest)
            price += table[size] * rest / size
        return price

    def __str__(self) -> str:
        return self.source + (f", {self.date}" if self.date else "")


def study_prices() -> Prices:
    """Return the study's prices (its Table 9: Lambda Labs, on demand, 2024-10-28)."""
    from pennyweight import study

    table = study.table(9)
    machines: dict[str, dict[int, float]] = {}
    for row in table.rows:
        cell = row.cells["usd_per_hour"]
        assert cell is not None  # Table 9 has no empty cell
        machines.setdefault(row.keys["gpu"].lower(), {})[int(row.keys["gpus"])] = cell.value
    (date,) = {row.keys["accessed"] for row in table.rows}
    return Prices(machines, "Lambda Labs on demand (the study's Table 9)", date)


def flat_price(usd_per_hour: float) -> Prices:
    """Return prices at which one GPU (or machine without) costs `usd_per_hour`, and n of them n times as much."""
    return Prices({}, "given by the user", flat=positive(usd_per_hour, "price", "USD an hour"))


def read_prices(path: str | Path) -> Prices:
    """Read a file of prices.

    Args:
        path: JSON: ``{"schema": 1, "source": "...", "date": "2026-01-31", "usd_per_hour": {"h100": {"1": 3.29}}}``,
            where "1" is the number of GPUs that the price is for.
    Raises:
        MeasurementError: It cannot be read, is of another version, or a price in it is not a positive number.
    """
    path = Path(path)
    raw = read_json(path, MeasurementError)
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else None
        raise MeasurementError(
            f'{path}: has schema {found!r}, this pennyweight reads {SCHEMA}: {{"schema": {SCHEMA}, "source": "...", '
            '"date": "2026-01-31", "usd_per_hour": {"h100": {"1": 3.29}}}'
        )
    table = raw.get("usd_per_hour")
    if not isinstance(table, dict) or not table:
        raise MeasurementError(f"{path}: usd_per_hour must have at least one GPU with its prices")
    machines = {str(gpu).lower(): _machine(path, str(gpu), counts) for gpu, counts in table.items()}
    return Prices(machines, str(raw.get("source", path)), _date(path, raw.get("date")))


def queries_per_dollar_sync(latency_s: float, price_per_hour: float) -> float:
    """Return how many queries a dollar buys, one after another.

    Args:
        latency_s: Seconds of one query from end to end.
        price_per_hour: USD an hour for all GPUs used.
    """
    return 3600 / (positive(latency_s, "latency", "s") * positive(price_per_hour, "price", "USD an hour"))


def queries_per_dollar_async(throughput_qps: float, price_per_hour: float) -> float:
    """Return how many queries a dollar buys, many at once.

    Args:
        throughput_qps: Queries a second.
        price_per_hour: USD an hour for all GPUs used.
    """
    throughput = positive(throughput_qps, "throughput", "queries a second")
    return 3600 * throughput / positive(price_per_hour, "price", "USD an hour")


def cost_per_1k_queries(queries_per_dollar: float) -> float:
    """Return USD for a thousand queries."""
    return 1000 / positive(queries_per_dollar, "queries per dollar", "1/USD")


def cost_reduction(baseline: Sequence[float], costs: Sequence[float]) -> float:
    """Return by what factor queries got cheaper: the mean of baseline / cost over the same use cases."""
    return _mean_ratio(baseline, costs, "cost")


def speedup(baseline: Sequence[float], throughputs: Sequence[float]) -> float:
    """Return by what factor throughput grew: the mean of throughput / baseline over the same use cases."""
    return _mean_ratio(throughputs, baseline, "throughput")


def positive(value: Any, what: str, unit: str) -> float:
    """Return `value` if it is a positive, finite number.

    Raises:
        MeasurementError: It is zero, negative, NaN, infinite, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise MeasurementError(f"{what} must be a number above 0, in {unit}; got {value!r}")
    return float(value)


def _mean_ratio(above: Sequence[float], below: Sequence[float], what: str) -> float:
    if len(above) != len(below) or not above:
        raise MeasurementError(
            f"{what}s of two formats must be over the same use cases; got {len(above)} and {len(below)}"
        )
    pairs = zip(above, below, strict=True)
    return sum(positive(a, what, "one unit") / positive(b, what, "one unit") for a, b in pairs) / len(above)


def _machine(path: Path, gpu: str, counts: Any) -> dict[int, float]:
    if not isinstance(counts, dict) or not counts:
        raise MeasurementError(
            f'{path}: {gpu} must have prices by number of GPUs, {{"1": 3.29}}; got {counts!r}'
        )
    wrong = [count for count in counts if not str(count).isdecimal() or int(count) < 1]
    if wrong:
        raise MeasurementError(f"{path}: {gpu}: a number of GPUs is 1 or more; got '{wrong[0]}'")
    return {
        int(count): positive(price, f"{path}: price of {count} x {gpu}", "USD an hour")
        for count, price in counts.items()
    }


def _date(path: Path, date: Any) -> str | None:
    if date is None:
        return None
    try:
        return datetime.date.fromisoformat(date).isoformat()
    except (TypeError, ValueError):
        raise MeasurementError(f"{path}: date must be year-month-day (2026-01-31); got {date!r}") from None
