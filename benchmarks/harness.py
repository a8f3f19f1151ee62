# SPDX-License-Identifier: Apache-2.0
"""Time several ways of doing one thing, side by side, with cold weights.

Sides take turns, in an order that is turned round every time, so that whatever else the machine does meets all.
Before every call at least twice the last-level cache are read, in the process that is timed. (Stores would leave
lines to be written back during the call; a large memset bypasses the cache and evicts nothing.) That evicts the code
too, which in a model ran a layer ago and costs 100 us to fetch again; so each side first makes the same call with the
first few outputs of the weight, which brings back activations and code and wakes the threads, and leaves the weight
cold. What the machine's memory and its cores do changes within seconds, where others share them: limits may be
measured after every call, to hold the call against its neighbours.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: After this torch's threads sleep (machine.prepare_torch).
IDLE_SECONDS = 0.003
#: Outputs of the weight that a call is readied with.
SMALL = 256


@dataclass
class Side:
    """One way of doing it: a name, a call, and what it took.

    Attributes:
        call: Does it.
        ready: Called after the eviction: brings back what the layer before would have left in the caches.
        cold: Does it once with everything evicted and returns the seconds; None: ``alternate`` evicts and times
            ``call``.
        peak: Measures the peak of the instruction that it multiplies with.
        limits: What the machine's memory reached in the measurement after each call.
        peaks: What ``peak`` gave after each call.
    """

    name: str
    call: Callable[[], object]
    cold: Callable[[], float] | None = None
    ready: Callable[[], object] = lambda: None
    peak: Callable[[], float] | None = None
    seconds: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)

    @property
    def median_us(self) -> float:
        return statistics.median(self.seconds) * 1e6

    @property
    def min_us(self) -> float:
        return min(self.seconds) * 1e6

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, middle, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / 2 / middle


def alternate(sides: list[Side], evict: Callable[[], None], rounds: int, budget: float,
              limit: Callable[[], float] | None = None) -> None:  # fmt: skip
    """Fill the sides' times.

    Args:
        sides: What to time; each has been called before, so that nothing is set up while timing.
        evict: Called before every timed call.
        rounds: Calls of each side at most.
        budget: Seconds of each side after which it is called no more (three calls are made in any case, or one of a
            side that has then taken three times as long: plain loops).
        limit: Measures what the machine can do, after every call.
    """
    for turn in range(rounds):
        for side in sides if turn % 2 == 0 else reversed(sides):
            if sum(side.seconds) > (budget if turn >= 3 else 3 * budget):
                continue
            if side.cold:
                side.seconds.append(side.cold())
            else:
                evict()
                side.ready()
                begin = time.perf_counter()
                side.call()
                side.seconds.append(time.perf_counter() - begin)
                time.sleep(IDLE_SECONDS)
            if limit:
                side.limits.append(limit())
            if side.peak:
                side.peaks.append(side.peak())
