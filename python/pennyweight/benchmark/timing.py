# SPDX-License-Identifier: Apache-2.0
"""What was timed: one query, or many at once; seconds throughout."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Query:
    """One query.

    Attributes:
        latency_s: From end to end.
        ttft_s: Until its first token.
        inter_token_s: Mean time between its tokens; None: it has one.
    """

    latency_s: float
    ttft_s: float
    inter_token_s: float | None


@dataclass(frozen=True)
class Load:
    """Many queries: a point of a sweep.

    Attributes:
        kind: "synchronous" (the next when one is done), "rate" (one every 1 / rate_qps), "throughput" (all at once);
            GuideLLM also has "concurrent" (so many under way all the time).
        rate_qps: Asked for; None where it is not a rate.
        throughput_qps: Reached: queries over the seconds from the first sent to the last done.
        latency_s, ttft_s, inter_token_s: Medians of the queries'; None: not known.
        requests: Queries done.
        seconds: All of it.
    """

    kind: str
    rate_qps: float | None
    throughput_qps: float
    latency_s: float
    ttft_s: float | None
    inter_token_s: float | None
    requests: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the point as a result's file has it."""
        return dict(vars(self))


def load_of(kind: str, rate: float | None, queries: Sequence[Query], seconds: float) -> Load:
    """Sum up queries that ran at one rate."""
    return Load(
        kind, rate, len(queries) / seconds, median([q.latency_s for q in queries]) or 0.0,
        median([q.ttft_s for q in queries]), median([q.inter_token_s for q in queries]), len(queries), seconds,
    )  # fmt: skip


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of those that are there; None where none is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def spread(values: Sequence[float]) -> float | None:
    """Return half the distance between the quartiles as a share of the median; None for less than two values."""
    if len(values) < 2:
        return None
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle
