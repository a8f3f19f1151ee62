# SPDX-License-Identifier: Apache-2.0
"""What a run found, as it shows itself: a table per mode and the points of sweeps."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pennyweight import money
from pennyweight.grid import aligned, html_table

Json = dict[str, Any]
MODES = {
    "sync": "one query at a time",
    "async": "many queries at once, maximum throughput",
}


@dataclass(frozen=True)
class Benchmark:
    """A result; shows itself in a terminal and in a notebook.

    Attributes:
        result: As `pennyweight.benchmark.results` lays it out.
    """

    result: Mapping[str, Any]

    @property
    def rows(self) -> list[Json]:
        """One for each format, use case and mode."""
        rows: list[Json] = self.result["rows"]
        return rows

    @property
    def baseline(self) -> str | None:
        """The format that others are held against."""
        return next((target["format"] for target in self.result["targets"] if target["baseline"]), None)

    def to_dict(self) -> Json:
        """Return the result as its file has it."""
        return dict(self.result)

    def gain(self, row: Json) -> float | None:
        """Return by what factor a row is faster than the baseline's; None where there is none."""
        base = self._base(row)
        if base is None:
            return None
        if row["mode"] == "sync":
            return float(base["latency_s"] / row["latency_s"])
        return float(row["throughput_qps"] / base["throughput_qps"])

    def __str__(self) -> str:
        parts = ["\n".join([title, *aligned(rows, left=(0, 1))]) for title, rows in self._tables()]
        return "\n\n".join([f"machine: {self.result['machine']['name']}", *parts, "\n".join(self._remarks())])

    def _repr_html_(self) -> str:
        tables = "".join(f"<h4>{html.escape(title)}</h4>{html_table(rows)}" for title, rows in self._tables())
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self._remarks())
        return f"<p>{html.escape(self.result['machine']['name'])}</p>{tables}<ul>{notes}</ul>"

    def _base(self, row: Json) -> Json | None:
        key = (self.baseline, row["use_case"], row["mode"])
        return next((r for r in self.rows if (r["format"], r["use_case"], r["mode"]) == key), None)

    def _tables(self) -> Iterator[tuple[str, list[list[str]]]]:
        for mode, title in MODES.items():
            found = [row for row in self.rows if row["mode"] == mode]
            if found:
                yield f"{mode}: {title}", [_head(mode), *(self._line(row) for row in found)]
        points = [(row, point) for row in self.rows for point in row["points"]]
        if points:
            yield "async: from one query at a time to the maximum", [
                ["use case", "format", "load", "queries/s", "latency", "to first token", "between tokens"],
                *([row["use_case"], row["format"], _load(p), f"{p['throughput_qps']:.4g}", _time(p["latency_s"]),
                   _time(p["ttft_s"]), _time(p["inter_token_s"])] for row, p in points),
            ]  # fmt: skip

    def _line(self, row: Json) -> list[str]:
        gain = self.gain(row)
        value = _time(row["latency_s"]) if row["mode"] == "sync" else f"{row['throughput_qps']:.4g}"
        spread = "" if row["spread"] is None else f"{row['spread']:.1%}"
        lengths = f"{row['prefill_tokens']}/{row['decode_tokens']}"
        queries = "" if row["queries_per_dollar"] is None else whole(row["queries_per_dollar"])
        return [
            row["use_case"], row["format"] + (" (partial)" if row["partial"] else ""), lengths, value, spread,
            "" if gain is None else f"{gain:.2f} x", _time(row["ttft_s"]), _time(row["inter_token_s"]),
            f"{row['output_tokens_per_s']:.4g}", queries,
        ]  # fmt: skip

    def _remarks(self) -> list[str]:
        prices = self.result["prices"]
        lines = list(self._means())
        if prices is None:
            lines.append(
                "no price: queries per dollar need --price USD_PER_HOUR, --prices FILE or --gpu NAME"
            )
        else:
            date = f", {prices['date']}" if prices["date"] else ""
            lines.append(f"price: {prices['usd_per_hour']:g} USD an hour ({prices['source']}{date})")
        if self.result["partial"]:
            lines.append("partial result")
        return [*lines, *self.result["notes"]]

    def _means(self) -> Iterator[str]:
        """Say what each format gains over all use cases, as the study's tables do."""
        for form in dict.fromkeys(row["format"] for row in self.rows):
            for mode in MODES:
                pairs = [
                    (row, base) for row in self.rows
                    if (row["format"], row["mode"]) == (form, mode) and (base := self._base(row)) is not None
                ]  # fmt: skip
                if form == self.baseline or len(pairs) < 2:
                    continue
                if mode == "sync":  # at one price a query costs as much less as it is faster
                    gain = money.cost_reduction(
                        [b["latency_s"] for _, b in pairs], [r["latency_s"] for r, _ in pairs]
                    )
                else:
                    gain = money.speedup(
                        [b["throughput_qps"] for _, b in pairs], [r["throughput_qps"] for r, _ in pairs]
                    )
                yield f"{form}, {mode}: {gain:.2f} x {self.baseline}, mean of {len(pairs)} use cases"


def _head(mode: str) -> list[str]:
    value = "latency" if mode == "sync" else "queries/s"
    return ["use case", "format", "tokens", value, "±", "gain", "to first token", "between tokens", "tokens/s",
            "queries/USD"]  # fmt: skip


def whole(value: float) -> str:
    """Return a number of queries without a power of ten."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _load(point: Json) -> str:
    return f"{point['rate_qps']:.3g}/s" if point["rate_qps"] else str(point["kind"])


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
