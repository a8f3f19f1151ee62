# SPDX-License-Identifier: Apache-2.0
"""A recommendation as people and programs read it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pennyweight.grid import aligned, html_table

#: Of the keys of the JSON.
SCHEMA = 1
#: What a machine without GPUs is called.
CPU = "cpu"
HEAD = ("", "format", "GPUs", "USD per 1k", "against BF16", "latency", "queries/s", "recovery", "")


@dataclass(frozen=True)
class Choice:
    """A format on a number of GPUs.

    Attributes:
        format: "BF16" or a scheme.
        gpus: How many.
        cost_per_1k_queries: USD; None: no price.
        times_cheaper: Than the cheapest BF16; None: no BF16.
        latency_s: From end to end: one query at a time, of the mix (the mean); many at once, of the slowest use case at
            this throughput. None: not known.
        throughput_qps: Many at once: queries a second, of the mix; None in sync.
        recovery: Percent; None: not known.
        recovery_source: Where it is from.
        source: Where speed is from.
        meets: Whether it meets the bounds.
        reason: One sentence.
    """

    format: str
    gpus: int
    cost_per_1k_queries: float | None
    times_cheaper: float | None
    latency_s: float | None
    throughput_qps: float | None
    recovery: float | None
    recovery_source: str | None
    source: str
    meets: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; of many queries at once a throughput, of one no throughput."""
        result = dict(vars(self))
        if self.throughput_qps is None:
            del result["throughput_qps"]
        return result

    def cells(self, place: int) -> tuple[str, ...]:
        """Return the line under HEAD."""
        return (
            f"{place}." if self.meets else "-", self.format, str(self.gpus),
            _number(self.cost_per_1k_queries), _number(self.times_cheaper, " x"), _number(self.latency_s, " s"),
            _number(self.throughput_qps), "unknown" if self.recovery is None else f"{self.recovery:.2f} %", self.reason,
        )  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """Formats in order, the best first. Shows itself in a terminal and in a notebook.

    Attributes:
        model, gpu, mode, workload: What was asked.
        bounds: "max_latency_s" and "min_recovery", each perhaps None.
        source: Where the figures are from.
        prices: Whose; None: no price.
        headline: The advice in a sentence.
        choices: The ranking; those that miss a bound come last.
        crossings: Many at once: from which load on W8A8 answers faster than W4A16, on as many GPUs as the best has.
        memory: By format: "weights_bytes", "kv_bytes_per_query" of the longest query, "gpus_that_fit".
        command: Makes the best format; None: BF16.
        notes: What a reader must know.
    """

    model: str
    gpu: str
    mode: str
    workload: str
    bounds: Mapping[str, float | None]
    source: str
    prices: str | None
    headline: str
    choices: tuple[Choice, ...]
    crossings: tuple[str, ...]
    memory: Mapping[str, Mapping[str, Any]]
    command: str | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON: "choices" is the ordered list."""
        from pennyweight import __version__

        return {
            "schema": SCHEMA, "kind": "recommendation", "pennyweight": __version__,
            **{key: value for key, value in vars(self).items() if key != "choices"},
            "choices": [choice.to_dict() for choice in self.choices],
        }  # fmt: skip

    def _grid(self) -> list[tuple[str, ...]]:
        lines = [HEAD, *(choice.cells(i + 1) for i, choice in enumerate(self.choices))]
        empty = [i for i in range(len(HEAD)) if i and all(line[i] in ("", "-") for line in lines[1:])]
        return [tuple(cell for i, cell in enumerate(line) if i not in empty) for line in lines]

    def _title(self) -> str:
        how = "one query at a time" if self.mode == "sync" else "many queries at once"
        return f"{self.model} on {self.gpu}, {how}: {self.workload}"

    def _below(self) -> list[str]:
        lines = [f"Source: {self.source}.", f"Prices: {self.prices}." if self.prices else "Prices: none."]
        lines += [f"Memory: {text}" for text in self._memory()]
        lines += [f"Crossing: {text}" for text in self.crossings]
        lines += [f"Note: {note}" for note in self.notes]
        return lines + ([f"To make it: {self.command}"] if self.command else [])

    def _memory(self) -> list[str]:
        return [
            f"{format_} has {found['weights_bytes'] / 1e9:.3g} GB of weights and "
            f"{found['kv_bytes_per_query'] / 1e9:.2g} GB of KV cache a query, and fits "
            f"{_counts(found['gpus_that_fit'])} x {self.gpu}."
            for format_, found in self.memory.items()
        ]

    def __str__(self) -> str:
        last = len(self._grid()[0]) - 1
        table = aligned(self._grid(), left=(0, 1, last))
        return "\n".join([self._title(), self.headline, *table, *self._below()])

    def _repr_html_(self) -> str:
        below = "".join(f"<li>{html.escape(line)}</li>" for line in self._below())
        return (
            f"<p>{html.escape(self._title())}</p><p><b>{html.escape(self.headline)}</b></p>"
            f"{html_table(self._grid())}<ul>{below}</ul>"
        )


def name(format_: str, gpus: int, gpu: str) -> str:
    """Return what a choice is called: "W4A16-INT on 2 GPUs"; on a machine without GPUs the format alone."""
    return format_ if gpu == CPU else f"{format_} on {gpus} GPU" + ("s" if gpus > 1 else "")


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return (f"{value:.0f}" if value >= 1000 else f"{value:.3g}") + unit


def _counts(counts: list[int]) -> str:
    return ", ".join(map(str, counts)) if counts else "no number of"
