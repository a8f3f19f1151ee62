# SPDX-License-Identifier: Apache-2.0
"""Time the quantization ops on a card: python benchmarks/bench_card.py --json FILE.

Each result is checked against the CPU's on a few rows before it is timed. Times are medians of single calls between
events, on random data, with the L2 cache flushed before each; bandwidth is a share of a copy of the same size, measured
the same way in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pennyweight import _C, ops

SIZES = [(8192, 8192), (8192, 4096), (8192, 14336), (256, 4096), (16, 4096), (1, 4096)]
BAR = 85.0  # percent of the copy's bandwidth, at 8192 x 8192


def median_us(call: Callable[[], object], flush: Tensor, rounds: int) -> float:
    """Median time of a call on the card, in microseconds."""
    for _ in range(3):
        call()
    times = []
    for _ in range(rounds):
        flush.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def calls(m: int, k: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Each op on bfloat16 rows, and the bytes that it must move."""
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    both = torch.randn(m, 2 * k, device="cuda", dtype=torch.bfloat16)
    gain = torch.rand(k, device="cuda", dtype=torch.bfloat16) + 0.5
    smooth = torch.rand(k, device="cuda") + 0.5
    n = m * k
    found: dict[str, tuple[Callable[[], object], int]] = {}
    for kind in ("int8", "fp8"):
        quantize = getattr(ops, f"quantize_per_token_{kind}")
        norm, silu = getattr(ops, f"rms_norm_quantize_{kind}"), getattr(ops, f"silu_mul_quantize_{kind}")
        found[f"quantize_per_token_{kind}"] = (lambda q=quantize: q(x), 3 * n)
        found[f"quantize_per_token_{kind} smooth"] = (lambda q=quantize: q(x, smooth), 3 * n)
        found[f"rms_norm_quantize_{kind}"] = (lambda f=norm: f(x, gain, 1e-5, None), 3 * n)
        found[f"rms_norm_quantize_{kind} residual"] = (lambda f=norm: f(x, gain, 1e-5, x), 7 * n)
        found[f"silu_mul_quantize_{kind}"] = (lambda f=silu: f(both), 5 * n)
    return found


def check() -> None:
    """Refuse to time a wrong result."""
    x = torch.randn(64, 8192, device="cuda", dtype=torch.bfloat16)
    for kind in ("int8", "fp8"):
        quantize = getattr(ops, f"quantize_per_token_{kind}")
        for got, want in zip(quantize(x), quantize(x.cpu()), strict=True):
            if not torch.equal(got.cpu(), want):
                raise SystemExit(
                    f"bench_card: quantize_per_token_{kind} is wrong on this card; nothing was timed"
                )


def main() -> int:
    """Measure, print a table, write JSON."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", type=Path, required=True, help="where the result goes")
    p.add_argument("--rounds", type=int, default=50, help="timed calls of each (default 50)")
    args = p.parse_args()
    if not torch.cuda.is_available() or not _C.cuda()["built"]:
        print(
            f"bench_card: needs a card and a build with CUDA; driver: {_C.cuda()['driver']}", file=sys.stderr
        )
        return 2
    check()
    flush = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    rows = []
    print(f"{'op':<34}{'M':>6}{'K':>7}{'us':>10}{'GB/s':>9}{'%copy':>8}")
    for m, k in SIZES:
        source = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        to = torch.empty_like(source)
        copy = 4 * m * k / median_us(lambda s=source, t=to: t.copy_(s), flush, args.rounds) / 1e3
        for name, (call, moved) in calls(m, k).items():
            us = median_us(call, flush, args.rounds)
            share = 100 * moved / us / 1e3 / copy
            rows.append(
                {"op": name, "m": m, "k": k, "us": us, "gb_per_s": moved / us / 1e3, "percent_of_copy": share}
            )
            print(f"{name:<34}{m:>6}{k:>7}{us:>10.1f}{moved / us / 1e3:>9.0f}{share:>8.1f}")
    large = [r for r in rows if (r["m"], r["k"]) == SIZES[0]]
    slow = [r["op"] for r in large if r["percent_of_copy"] < BAR]
    print(f"{len(large) - len(slow)} of {len(large)} at 8192 x 8192 reach {BAR:.0f} % of a copy")
    properties = torch.cuda.get_device_properties(0)
    result = {
        "device": properties.name,
        "torch": torch.__version__,
        "cuda": _C.cuda(),
        "card": _C.card(0),
        "rows": rows,
    }
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
