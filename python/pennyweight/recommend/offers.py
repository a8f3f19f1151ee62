# SPDX-License-Identifier: Apache-2.0
"""What a source knows: a format on so many GPUs, and how fast each use case is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: By load, queries a second, ascending: latency, s.
Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Speed:
    """Of one use case.

    Attributes:
        seconds: Of the machine's time per query: the latency of one at a time, 1 / throughput of many.
        latency: From end to end, s, one at a time or at that throughput; None: not known.
        curve: Many queries: latency by load; the last point is the highest throughput.
    """

    seconds: float
    latency: float | None
    curve: Curve = ()

    def within(self, bound: float) -> Speed | None:
        """Return the speed at the highest load whose latency is at most `bound` seconds; None: no load has it."""
        if self.latency is not None and self.latency <= bound:
            return self
        met = [i for i, (_, latency) in enumerate(self.curve) if latency <= bound]
        if not met:
            return None
        load, latency = self.curve[met[-1]]
        if met[-1] + 1 < len(self.curve):  # between two points of the curve, the bound is reached on the line
            next_load, next_latency = self.curve[met[-1] + 1]
            load += (bound - latency) / (next_latency - latency) * (next_load - load)
            latency = bound
        return Speed(1 / load, latency, self.curve)

    @property
    def lowest_latency(self) -> float | None:
        """The latency at the lowest load that is known, s."""
        return min((latency for _, latency in self.curve), default=self.latency)


@dataclass(frozen=True)
class Offer:
    """A format on so many GPUs.

    Attributes:
        format: "BF16" or a scheme.
        gpus: How many, sharing every query.
        speeds: By use case.
    """

    format: str
    gpus: int
    speeds: Mapping[str, Speed]


@dataclass(frozen=True)
class Offers:
    """Everything that one source has for a workload.

    Attributes:
        source: Where it is from, as shown.
        offers: BF16 and formats at each number of GPUs that the source has.
        notes: What a reader must know.
    """

    source: str
    offers: Sequence[Offer]
    notes: Sequence[str] = field(default=())
