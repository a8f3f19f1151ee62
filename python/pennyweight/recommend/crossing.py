# SPDX-License-Identifier: Apache-2.0
"""At which load one format becomes faster than another."""

from __future__ import annotations

from collections.abc import Sequence

from pennyweight.recommend.offers import Curve, Offer


def crossings(offers: Sequence[Offer]) -> list[str]:
    """Return a sentence for each use case that has curves of W4A16-INT and a W8A8 format on as many GPUs."""
    found = []
    for one in offers:
        for other in offers:
            if one.format == "W4A16-INT" and other.format.startswith("W8A8") and one.gpus == other.gpus:
                for case, speed in one.speeds.items():
                    theirs = other.speeds[case]
                    if speed.curve and theirs.curve:
                        said = _sentence(one.format, speed.curve, other.format, theirs.curve)
                        found.append(f"{case}: {said}")
    return found


def crossing(one: Curve, other: Curve) -> float | None:
    """Return the load, queries a second, from which `other` has the lower latency; None: at no load, or at all.

    A format beyond its highest throughput has no latency, and so loses to one that still answers.
    """
    loads = sorted({load for load, _ in (*one, *other)})
    before: float | None = None
    previous = 0.0
    for load in loads:
        mine, theirs = latency_at(one, load), latency_at(other, load)
        if mine is None:
            return one[-1][0] if theirs is not None and before is not None and before > 0 else None
        if theirs is None:
            return None
        ahead = theirs - mine
        if before is not None and before > 0 >= ahead:
            return previous + before / (before - ahead) * (load - previous)
        if before is None and ahead <= 0:
            return None
        before, previous = ahead, load
    return None


def latency_at(curve: Curve, load: float) -> float | None:
    """Return the latency at a load, on the line between two points; below the first, its latency; None: beyond."""
    if load > curve[-1][0]:
        return None
    before = curve[0]
    for point in curve:
        if point[0] >= load:
            if point[0] == before[0]:
                return point[1]
            return before[1] + (load - before[0]) / (point[0] - before[0]) * (point[1] - before[1])
        before = point
    return curve[-1][1]


def _sentence(name: str, one: Curve, other_name: str, other: Curve) -> str:
    at = crossing(one, other)
    if at is not None:
        return f"{name} answers faster below {at:.3g} queries/s, {other_name} above."
    back = crossing(other, one)
    if back is not None:
        return f"{other_name} answers faster below {back:.3g} queries/s, {name} above."
    low = one[0][0] if one[0][0] > other[0][0] else other[0][0]
    mine, theirs = latency_at(one, low), latency_at(other, low)
    first = name if theirs is None or (mine is not None and mine < theirs) else other_name
    return f"{first} answers faster at every load."
