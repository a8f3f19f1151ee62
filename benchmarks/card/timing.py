# SPDX-License-Identifier: Apache-2.0
"""Times on a card: single calls from a captured graph, the L2 cache flushed before each, on random data."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: Calls before anything is timed, so that nothing is set up or allocated while timing.
WARM = 3


@dataclass
class Clock:
    """Times calls on the current card.

    Attributes:
        rounds: Timed calls of each.
        flush_bytes: Written before each call: more than any card's L2.
    """

    rounds: int = 50
    flush_bytes: int = 1 << 28
    _flush: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._flush = torch.empty(self.flush_bytes, dtype=torch.uint8, device="cuda")

    def median_us(self, call: Callable[[], object], rounds: int | None = None) -> float:
        """Median time of a call, in microseconds; of its graph, so that the host's time is not in it."""
        replay = graph_of(call)
        times = []
        for _ in range(rounds or self.rounds):
            self._flush.zero_()
            times.append(elapsed_ms(replay) * 1e3)
        return statistics.median(times)

    def copy_gb_per_s(self, bytes_: int) -> float:
        """Bytes read plus bytes written per second by torch's copy of so many bytes."""
        source = torch.randint(0, 255, (bytes_,), dtype=torch.uint8, device="cuda")
        to = torch.empty_like(source)
        return 2 * bytes_ / self.median_us(lambda: to.copy_(source)) / 1e3


def graph_of(call: Callable[[], object]) -> Callable[[], object]:
    """A captured graph's replay of a call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def elapsed_ms(call: Callable[[], object]) -> float:
    """Time of one call between two events, in milliseconds."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
