# SPDX-License-Identifier: Apache-2.0
"""Ranking offers: what a query costs, which bounds are met, and a sentence on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pennyweight import money
from pennyweight.errors import MeasurementError
from pennyweight.money import Prices
from pennyweight.recommend.offers import Offer, Offers, Speed
from pennyweight.recommend.recovery import Recovery
from pennyweight.recommend.result import Choice, name
from pennyweight.recommend.workload import Workload

#: Costs that differ by less are a tie.
TIE = 0.02


@dataclass(frozen=True)
class Bounds:
    """What must hold; None: no bound.

    Attributes:
        latency: Seconds from end to end.
        recovery: Percent.
    """

    latency: float | None = None
    recovery: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        return {"max_latency_s": self.latency, "min_recovery": self.recovery}


@dataclass(frozen=True)
class _Scored:
    """An offer at the load that the latency bound allows, with what it costs in the unit of the ranking."""

    offer: Offer
    gpu: str
    speeds: Mapping[str, Speed]
    rate: float  # USD, or machine time, an hour
    late: float  # seconds over the latency bound; 0: met
    short: float  # points below the recovery bound; 0: met
    recovery: Recovery | None

    @property
    def meets(self) -> bool:
        return self.late == 0 and self.short == 0

    @property
    def name(self) -> str:
        return name(self.offer.format, self.offer.gpus, self.gpu)

    def costs(self, work: Workload) -> list[float]:
        """Of a query of each use case."""
        return [self.rate * self.speeds[case.name].seconds / 3600 for case, _ in work.cases]

    def cost(self, work: Workload) -> float:
        """Of a query of the mix."""
        return sum(share * cost for (_, share), cost in zip(work.cases, self.costs(work), strict=True))

    def cheaper(self, baseline: _Scored | None, work: Workload) -> float | None:
        """How many times cheaper than the baseline; use cases alike: the mean of that."""
        if baseline is None:
            return None
        if not work.alike:
            return baseline.cost(work) / self.cost(work)
        return money.cost_reduction(baseline.costs(work), self.costs(work))


@dataclass(frozen=True)
class _Ranked:
    """A scored offer in the ranking.

    Attributes:
        cheaper: How many times cheaper than the cheapest BF16; None: there is none.
        cost: Of a query of the mix.
    """

    scored: _Scored
    cheaper: float | None
    cost: float

    @property
    def score(self) -> float:
        """What the ranking is by, the least first."""
        return self.cost if self.cheaper is None else 1 / self.cheaper


def ranked(
    found: Offers,
    gpu: str,
    mode: str,
    work: Workload,
    bounds: Bounds,
    prices: Prices | None,
    kept: Mapping[str, Recovery],
) -> tuple[str, list[Choice]]:
    """Return the advice in a sentence, and every offer, best first; those that miss a bound last, the nearest first.

    Args:
        found: What is known.
        gpu: Name of the GPU, for its price.
        mode: "sync" or "async".
        work: What is asked.
        bounds: What must hold.
        prices: None: ranked by GPU time.
        kept: Recovery by format.
    Raises:
        MeasurementError: Nothing meets the bounds; the text says by how much the nearest misses.
    """
    scored = [
        _scored(offer, gpu, bounds, prices.per_hour(gpu, offer.gpus) if prices else float(offer.gpus), kept)
        for offer in found.offers
    ]
    if not any(one.meets for one in scored):
        raise MeasurementError(_nearest(scored, bounds))
    whole = [one for one in scored if one.offer.format == "BF16"]
    baseline = min(whole, key=lambda one: one.cost(work), default=None)
    order = _ordered([_Ranked(one, one.cheaper(baseline, work), one.cost(work)) for one in scored])
    return _headline(order), [
        _choice(one, _reason(one, order[0], work, mode, bounds), mode, work, found.source, prices is not None)
        for one in order
    ]


def _scored(offer: Offer, gpu: str, bounds: Bounds, rate: float, kept: Mapping[str, Recovery]) -> _Scored:
    speeds, late = dict(offer.speeds), 0.0
    if bounds.latency is not None:
        for name, speed in offer.speeds.items():
            within = speed.within(bounds.latency)
            if within is not None:
                speeds[name] = within
            else:
                lowest = speed.lowest_latency
                late = max(late, float("inf") if lowest is None else lowest - bounds.latency)
    recovery = kept.get(offer.format)
    short = 0.0
    if bounds.recovery is not None:
        short = float("inf") if recovery is None else max(0.0, bounds.recovery - recovery.percent)
    return _Scored(offer, gpu, speeds, rate, late, short, recovery)


def _ordered(ranks: Sequence[_Ranked]) -> list[_Ranked]:
    """Best first; BF16 before what is not cheaper by more than a tie, since it loses nothing."""
    order = sorted(ranks, key=lambda r: (not r.scored.meets, r.scored.late + r.scored.short, r.score))
    for one in order:
        if one.scored.offer.format == "BF16" and one.scored.meets and _tied(one.score, order[0].score):
            return [one, *(other for other in order if other is not one)]
    return order


def _headline(order: Sequence[_Ranked]) -> str:
    best = order[0]
    ties = [one.scored.name for one in order[1:] if one.scored.meets and _tied(one.score, best.score)]
    tie = f" ({' and '.join(ties)} within 2 %)" if ties else ""
    return f"{'Stay with' if best.scored.offer.format == 'BF16' else 'Take'} {best.scored.name}{tie}."


def _choice(one: _Ranked, reason: str, mode: str, work: Workload, source: str, priced: bool) -> Choice:
    scored = one.scored
    seconds = sum(share * scored.speeds[case.name].seconds for case, share in work.cases)
    latencies = [scored.speeds[case.name].latency for case, _ in work.cases]
    known = [latency for latency in latencies if latency is not None]
    slowest = max(known) if len(known) == len(latencies) else None
    return Choice(
        format=scored.offer.format,
        gpus=scored.offer.gpus,
        cost_per_1k_queries=1000 * one.cost if priced else None,
        times_cheaper=one.cheaper,
        latency_s=seconds if mode == "sync" else slowest,
        throughput_qps=None if mode == "sync" else 1 / seconds,
        recovery=None if scored.recovery is None else scored.recovery.percent,
        recovery_source=None if scored.recovery is None else scored.recovery.source,
        source=source,
        meets=scored.meets,
        reason=reason,
    )


def _reason(one: _Ranked, best: _Ranked, work: Workload, mode: str, bounds: Bounds) -> str:
    scored = one.scored
    if not scored.meets:
        return _misses(scored, bounds)
    if one is not best:
        if _tied(one.score, best.score):
            return f"Costs as much as {best.scored.name}, within 2 %."
        return f"Costs {one.score / best.score:.2f} times as much as {best.scored.name}."
    if scored.offer.format == "BF16":
        return "No format is cheaper by more than 2 %, and it loses nothing."
    than = "the cheapest" if one.cheaper is None else f"{one.cheaper:.2f} times cheaper than BF16"
    return f"Is {than}{_mechanism(scored.offer.format, mode, work)}."


def _mechanism(format_: str, mode: str, work: Workload) -> str:
    prefill = sum(share * case.prefill for case, share in work.cases)
    decode = sum(share * case.decode for case, share in work.cases)
    if format_ == "W4A16-INT" and mode == "sync":
        return ": one query at a time waits for weights to be read, and 4 bits are the fewest"
    if format_ == "W4A16-INT" and decode >= prefill / 2:
        return ": its answers are long, and decoding reads weights"
    if format_.startswith("W8A8") and mode == "async":
        return ": many queries at once wait for arithmetic, and 8 bits are the fastest"
    if format_.startswith("W8A8") and prefill > 8 * decode:
        return ": its prompts are long, and 8 bits are the fastest arithmetic"
    return ""


def _misses(one: _Scored, bounds: Bounds) -> str:
    parts = []
    if one.late:
        by = "an unknown time" if one.late == float("inf") else f"{one.late:.3g} s"
        parts.append(f"misses the latency bound of {bounds.latency:g} s by {by}")
    if one.short and one.recovery is None:
        parts.append("its recovery is unknown: measure it with pennyweight evaluate")
    elif one.short:
        parts.append(f"misses the recovery bound of {bounds.recovery:g} % by {one.short:.2f} points")
    text = " and ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _nearest(scored: Sequence[_Scored], bounds: Bounds) -> str:
    """What is said where nothing meets the bounds."""
    known = [one for one in scored if one.late + one.short < float("inf")]
    if not known:
        return "nothing is known to meet the bounds: " + "; ".join(
            f"{one.name}: {_misses(one, bounds)}" for one in scored
        )

    def far(one: _Scored) -> float:
        return one.late / (bounds.latency or 1) + one.short / (bounds.recovery or 1)

    best = min(known, key=far)
    miss = _misses(best, bounds)
    return f"nothing meets the bounds; the nearest, {best.name}, {miss[0].lower()}{miss[1:]}"


def _tied(one: float, other: float) -> bool:
    return abs(one - other) <= TIE * min(one, other)
