# SPDX-License-Identifier: Apache-2.0
"""Hessian and GPTQ of one weight beside llm-compressor's, which runs in a process of its own and gets the same tensors
by file. int4, groups of 128, static act-order, damping 0.01; the solver is timed from damping to codes.

A Hessian of many tokens is updates of 2,048, as llm-compressor makes them: one is timed, and counted as often as
needed.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import peers
from pennyweight import _C, ops

PEER, UPDATE, GROUP = "llmcompressor", 2048, 128
#: What our layer-output error may be of the peer's.
MOST_ERROR = 1.001


@dataclass
class Times:
    """One side's seconds, by the clock and of all threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, seconds: float, cpu_seconds: float) -> None:
        self.wall.append(seconds)
        self.cpu.append(cpu_seconds)

    def median(self, clock: str) -> float:
        return statistics.median(getattr(self, clock))


def timed(call: Callable[[], Any], into: Times) -> Any:
    """Call, note how long it took, return the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    into.add(time.perf_counter() - wall, time.process_time() - cpu)
    return result


def output_error(codes: Tensor, weight: Tensor, scale: Tensor, h: Tensor) -> float:
    """|X (W - Q)^T| / |X W^T| over every 16th row, from the whole Hessian."""
    w = weight[::16].float()
    d = w - codes[::16].float() * scale[::16].repeat_interleave(GROUP, 1)
    return math.sqrt(float(((d @ h) * d).sum(dtype=torch.float64) / ((w @ h) * w).sum(dtype=torch.float64)))


def compare(n: int, k: int, tokens: int, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Time both on one shape, print the ratios and verdicts, return rows for --json.

    Args:
        n, k: The weight's shape.
        tokens: Behind the whole Hessian.
        threads: Of either side.
        rounds: Solves and updates of each side, which take turns.
    """
    interpreter = peers.python(PEER)
    if interpreter is None:
        sys.exit(f"--peers {PEER}: not installed; run make peers PEERS={PEER}")
    x = (torch.randn(UPDATE, k) * torch.rand(k).exp()).bfloat16()
    x[:, 1:] += x[:, :-1]  # neighbours have something in common
    weight = (torch.randn(n, k) * 0.02).bfloat16()
    scale = ops.weight_scales(weight, "int4", GROUP, "minmax")
    update, solve = {"ours": Times(), PEER: Times()}, {"ours": Times(), PEER: Times()}
    codes: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        files = {name: str(Path(folder) / name) for name in ("x", "weight", "hessian", "scale", "codes")}
        script = f"gptq_{PEER}.py"
        worker = peers.Worker(PEER, interpreter, [str(threads)], patience=3600, script=script)
        stack.callback(worker.close)
        worker.ask(do="ready")  # its imports are done, and it stands still while we have our turn
        x.float().numpy().tofile(files["x"])
        h = torch.zeros(k, k)
        ops.hessian_accumulate(h, x)
        for _ in range(rounds):
            h.zero_()
            timed(lambda: ops.hessian_accumulate(h, x), update["ours"])
            update[PEER].add(**worker.ask(do="hessian", x=files["x"], tokens=UPDATE, k=k))
        h += h.tril(-1).T
        h.numpy().tofile(files["hessian"])
        weight.float().numpy().tofile(files["weight"])
        scale.numpy().tofile(files["scale"])
        options = {key: files[key] for key in ("weight", "hessian", "scale", "codes")}
        for _ in range(rounds):
            codes["ours"], _ = timed(
                lambda: ops.gptq_quantize(weight, h, scale, 4, GROUP, 0.01, True), solve["ours"]
            )
            solve[PEER].add(**worker.ask(do="solve", n=n, k=k, **options))
        codes[PEER] = torch.from_numpy(np.fromfile(files["codes"], np.float32).reshape(n, k))
    errors = {side: output_error(c, weight, scale, h) for side, c in codes.items()}
    same = float((codes["ours"] == codes[PEER]).float().mean())
    updates = tokens / UPDATE
    rows = []
    for side in ("ours", PEER):
        name = {"impl": str(_C.last_run("gptq_quantize"))} if side == "ours" else {"peer": PEER}
        for op, count in (("gptq_quantize", 0.0), ("hessian_and_gptq", updates)):
            wall, cpu = (solve[side].median(c) + update[side].median(c) * count for c in ("wall", "cpu"))
            least = min(solve[side].wall) + min(update[side].wall) * count
            m = 0 if op == "gptq_quantize" else tokens
            more = {"median_us": wall * 1e6, "min_us": least * 1e6, "cpu_us": cpu * 1e6}
            rows.append({"op": op, **name, "M": m, "N": n, "K": k, **more, "error": errors[side]})
    show(rows, same, errors, updates)
    return rows


def show(rows: list[dict[str, Any]], same: float, errors: dict[str, float], updates: float) -> None:
    """Print both sides and the ratios."""
    for row in rows:
        side = row.get("impl") or "peer:" + row["peer"]
        times = f"{row['median_us'] / 1e6:>9.2f} s{row['cpu_us'] / 1e6:>10.2f} cpu s"
        print(f"{row['op']:<18}{side:<20}{row['N']:>7}{row['K']:>7}{times}   output error {row['error']:.5f}")
    print(f"{same:.2%} of the codes are the same; {updates:g} updates of {UPDATE} tokens")
    for op in ("gptq_quantize", "hessian_and_gptq"):
        ours, theirs = (next(r for r in rows if r["op"] == op and side in r) for side in ("impl", "peer"))
        wall, cpu = (theirs[key] / ours[key] for key in ("median_us", "cpu_us"))
        print(f"{op}: {wall:.2f} x {PEER} ({cpu:.2f} x by cpu time)")
    worse = errors["ours"] / errors[PEER]
    print(
        f"output error {worse:.4f} of {PEER}'s: {'no worse' if worse <= MOST_ERROR else 'WORSE'}", flush=True
    )
