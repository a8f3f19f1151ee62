# SPDX-License-Identifier: Apache-2.0
"""From timings to rows of a result, with what they cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pennyweight import money
from pennyweight.benchmark.timing import Load, Query, median, spread
from pennyweight.use_cases import ALL, UseCase

Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where it ran, and what that costs.

    Attributes:
        gpu: Name of the GPU as prices have it; "cpu" without one; None: not known.
        gpus: How many.
        usd_per_hour: For all of them; None: no price.
    """

    gpu: str | None
    gpus: int
    usd_per_hour: float | None


def sync_row(
    form: str, case: UseCase, queries: Sequence[Query], place: Place, source: str, partial: bool
) -> Json:
    """Sum up queries that ran one after another."""
    latencies = [query.latency_s for query in queries]
    latency = statistics.median(latencies)
    ttft = median([query.ttft_s for query in queries])
    price = place.usd_per_hour
    return _start(form, case, "sync") | {
        "latency_s": latency, "throughput_qps": None, "ttft_s": ttft,
        "inter_token_s": median([query.inter_token_s for query in queries]), "prefill_s": ttft,
        "decode_s": median([query.latency_s - query.ttft_s for query in queries]),
        "output_tokens_per_s": case.decode / latency, **vars(place),
        "queries_per_dollar": None if price is None else money.queries_per_dollar_sync(latency, price),
        "repeats": len(queries), "spread": spread(latencies), "source": source, "partial": partial, "points": [],
    }  # fmt: skip


def async_row(
    form: str,
    case: UseCase,
    most: Sequence[Load],
    curve: Sequence[Load],
    place: Place,
    source: str,
    partial: bool,
) -> Json:
    """Sum up the repeats at the maximum throughput, and the points below it."""
    reached = [load.throughput_qps for load in most]
    throughput = statistics.median(reached)
    typical = min(most, key=lambda load: abs(load.throughput_qps - throughput))
    price = place.usd_per_hour
    points = sorted([*curve, typical], key=lambda load: load.throughput_qps)
    return _start(form, case, "async") | {
        "latency_s": median([load.latency_s for load in most]), "throughput_qps": throughput,
        "ttft_s": median([load.ttft_s for load in most]),
        "inter_token_s": median([load.inter_token_s for load in most]), "prefill_s": None, "decode_s": None,
        "output_tokens_per_s": case.decode * throughput, **vars(place),
        "queries_per_dollar": None if price is None else money.queries_per_dollar_async(throughput, price),
        "repeats": len(most), "spread": spread(reached), "source": source, "partial": partial,
        "points": [load.to_dict() for load in points] if curve else [],
    }  # fmt: skip


def point_row(form: str, case: UseCase, load: Load, place: Place, source: str) -> Json:
    """Make a sync row of a synchronous point, of which only medians are known."""
    between = load.inter_token_s if case.decode > 1 else None
    query = Query(load.latency_s, load.ttft_s or load.latency_s, between)
    made = sync_row(form, case, [query], place, source, False) | {"repeats": load.requests}
    if load.ttft_s is None or load.ttft_s >= load.latency_s:  # seen of servers that send everything at once
        made |= {"ttft_s": load.ttft_s, "prefill_s": None, "decode_s": None}
    return made


def named(prefill: int, decode: int, scale: float) -> UseCase:
    """Return the use case that has these lengths at this scale, or one that is called by them."""
    for case in ALL:
        scaled = case.scaled(scale)
        if (scaled.prefill, scaled.decode) == (prefill, decode):
            return scaled
    return UseCase(f"{prefill}-{decode}", prefill, decode)


def _start(form: str, case: UseCase, mode: str) -> Json:
    return {
        "format": form, "use_case": case.name, "mode": mode,
        "prefill_tokens": case.prefill, "decode_tokens": case.decode,
    }  # fmt: skip
