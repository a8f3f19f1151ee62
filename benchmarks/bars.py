# SPDX-License-Identifier: Apache-2.0
"""What the kernels are to reach, and whether a result does: python benchmarks/bars.py [RESULT.json ...]

A bar holds for the geometric mean over the shapes, with no shape worse than 0.9 of it, at every M it names. What a
machine or a run cannot tell is named, with the reason, and counts neither way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from peers import PEERS
from results import Row, geometric_mean
from roofline import Limits

SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336))
LARGEST = ((28672, 4096),)
SOLVED = ((4096, 14336),)
#: Best first; of an op's implementations the first that was measured is judged.
RANKS = ("avx512bf16", "avx512vnni", "avx2")
#: How far a single shape may stay behind.
WORST = 0.9


class Unknown(Exception):
    """A figure that this run or machine cannot give; the text says why."""


class Run:
    """A result's rows by what they are about, and its limits."""

    def __init__(self, rows: list[Row], limits: dict[str, float]) -> None:
        self.limits = Limits(**limits)
        self._ours = {(r["op"], r["impl"], r["N"], r["K"], r["M"]): r for r in rows if "impl" in r}
        self._peers = {(r["peer"], r["N"], r["K"], r["M"]): r for r in rows if "peer" in r}

    def own(self, op: str, n: int, k: int, m: int, impl: str | None = None) -> Row:
        """Return the row of an implementation, or of the best one measured."""
        for name in [impl] if impl else RANKS:
            if (op, name, n, k, m) in self._ours:
                return self._ours[op, name, n, k, m]
        raise Unknown("not run")

    def peers(self, names: list[str], row: Row) -> list[Row]:
        """Return what peers made of the same case, fastest first."""
        size = row["N"], row["K"], row["M"]
        found = [self._peers[(name, *size)] for name in names if (name, *size) in self._peers]
        return sorted(found, key=lambda r: float(r["median_us"]))


Metric = Callable[[Run, Row], float]


def read_share(run: Run, row: Row) -> float:
    """Share of the read bandwidth measured between the calls, by medians."""
    return float(row["bandwidth_share"])


def peak_share(limit: str) -> Metric:
    """Share of an instruction's peak, measured between the calls, by medians."""

    def share(run: Run, row: Row) -> float:
        if row.get("instruction") != limit:
            own = row["peak_share"]
            aside = f"; {row['impl']} is at {own:.0%} of its own peak" if own else ""
            lacks = "this run" if getattr(run.limits, limit) else "this processor"
            raise Unknown(f"{lacks} has no {limit} instruction{aside}")
        return float(row["peak_share"])

    return share


def against(*names: str, of: str = "") -> Metric:
    """Speed against the fastest of some peers, or of all that compute the same kind of product."""
    listed = [*names, *(peer for peer, op in PEERS.items() if op == of)]

    def ratio(run: Run, row: Row) -> float:
        found = run.peers(listed, row)
        if not found:
            raise Unknown(f"{' or '.join(listed)} did not run")
        return float(found[0]["median_us"]) / float(row["median_us"])

    return ratio


def against_own(op: str) -> Metric:
    """Speed against another of our ops."""

    def ratio(run: Run, row: Row) -> float:
        other = run.own(op, row["N"], row["K"], row["M"])
        return float(other["median_us"]) / float(row["median_us"])

    return ratio


def field(name: str) -> Metric:
    """A figure that the row has."""

    def value(run: Run, row: Row) -> float:
        if row[name] is None:
            raise Unknown(f"{name} was not measured")
        return float(row[name])

    return value


@dataclass(frozen=True)
class Bar:
    """A bar: at each M, the metric over the shapes is at least ``need`` (at most, with ``below``)."""

    op: str
    ms: tuple[int, ...]
    text: str
    metric: Metric
    need: float
    shapes: tuple[tuple[int, int], ...] = SHAPES
    impl: str | None = None
    below: bool = False


INT8, FP8, W4A16, W4A8 = "linear_w8a8_int8", "linear_w8a8_fp8", "linear_w4a16", "linear_w4a8_int8"
QUANTIZATIONS = [
    f"{name}_{form}"
    for name in ("quantize_per_token", "rms_norm_quantize", "silu_mul_quantize")
    for form in ("int8", "fp8")
]
READ, VNNI, DOTS = "of read bandwidth", "of the VNNI peak", "of the BF16 peak"
BARS = [
    Bar(INT8, (1,), READ, read_share, 0.90, LARGEST),
    Bar(INT8, (4, 8), READ, read_share, 0.85),
    Bar(INT8, (4, 8), "x every peer", against(of=INT8), 1.0),
    Bar(INT8, (16, 32), VNNI, peak_share("vnni"), 0.85),
    Bar(INT8, (16,), "x the best peer", against(of=INT8), 1.3),
    Bar(INT8, (64, 128, 256, 1024), "x every peer", against(of=INT8), 1.0),
    Bar(INT8, (64, 128, 256, 1024), "x vLLM-CPU", against("vllm_int8"), 1.15),
    Bar(INT8, (256,), VNNI, peak_share("vnni"), 0.92),
    Bar(W4A16, (1,), READ, read_share, 0.90, LARGEST),
    Bar(W4A16, (1,), "x the best true W4A16 peer", against(of=W4A16), 2.5),
    Bar(W4A16, (1,), "x ggml Q4_K", against("ggml_q4_K"), 1.2),
    Bar(W4A16, (4, 8, 16, 17, 32, 64), DOTS, peak_share("bf16"), 0.85),
    Bar(W4A16, (4, 8, 16, 17, 32, 64), "x the best true W4A16 peer", against(of=W4A16), 2.3),
    Bar(W4A16, (256, 1024), "x every peer", against(of=W4A16), 1.0),
    Bar(W4A16, (256, 1024), DOTS, peak_share("bf16"), 0.91),
    Bar(W4A8, (1,), READ, read_share, 0.90, LARGEST),
    Bar(W4A8, (1,), "x the best true W4A16 peer", against(of=W4A16), 2.5),
    Bar(W4A8, (1,), "x ggml Q4_K", against("ggml_q4_K"), 1.2),
    Bar(W4A8, (16, 17, 32, 64, 128, 256, 1024), "x zentorch DA8W4", against("zentorch_da8w4"), 1.2),
    Bar(W4A8, (16, 17, 32, 64, 128, 256, 1024), f"x our {INT8}", against_own(INT8), 1 / 1.08),
    Bar(FP8, (1,), READ, read_share, 0.90),
    Bar(FP8, (1,), "x the best peer", against(of=FP8), 50),
    Bar(FP8, (16, 32), DOTS, peak_share("bf16"), 0.85),
    Bar(FP8, (64, 128, 256, 1024), DOTS, peak_share("bf16"), 0.88),
    *(Bar(op, (64, 128, 256, 1024), "of the 256-bit peak", field("peak_share"), 0.75, impl="avx2")
      for op in (INT8, FP8, W4A16, W4A8)),
    Bar("gptq_quantize", (0,), "x llm-compressor", against("llmcompressor"), 8, SOLVED),
    Bar("hessian_and_gptq", (32768,), "x llm-compressor", against("llmcompressor"), 5, SOLVED),
    *(Bar(op, (8192,), "of copy bandwidth", field("copy_share"), 0.85, ((0, 8192),)) for op in QUANTIZATIONS),
    *(Bar(op, (1,), "of the linear layer that follows", field("share_of_linear"), 0.03, SHAPES, below=True)
      for op in QUANTIZATIONS),
]  # fmt: skip


def _shown(value: float, text: str) -> str:
    return f"{value:.2f} x" if text.startswith("x ") else f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def judge(bar: Bar, run: Run) -> tuple[bool | None, str]:
    """Hold a run against a bar.

    Returns:
        Whether it is met, None where nothing could be measured; and the figures by M.
    """
    met: bool | None = None
    parts = []
    for m in bar.ms:
        values: dict[tuple[int, int], float] = {}
        unknown: list[str] = []
        for n, k in bar.shapes:
            try:
                values[n, k] = bar.metric(run, run.own(bar.op, n, k, m, bar.impl))
            except Unknown as why:
                unknown.append(str(why))
        if not values:
            reasons = [why for why in dict.fromkeys(unknown) if why != "not run"]
            parts.append(f"{m}: " + (reasons[0] if reasons else "not run"))
            continue
        mean = geometric_mean(list(values.values()))
        worst = (max if bar.below else min)(values, key=values.__getitem__)
        slack = 1 / WORST if bar.below else WORST
        sign = -1 if bar.below else 1
        reached = sign * mean >= sign * bar.need and sign * values[worst] >= sign * bar.need * slack
        met = reached if met is None else met and reached
        text = f"{m}: {_shown(mean, bar.text)}"
        if len(values) > 1:
            text += f" ({worst[0]}x{worst[1]}: {_shown(values[worst], bar.text)})"
        parts.append(text)
    return met, ", ".join(parts)


def verdicts(rows: list[Row], limits: dict[str, float]) -> list[str]:
    """Say of every bar of which a row was measured whether it is met."""
    run = Run(rows, limits)
    ops = {r["op"] for r in rows if "impl" in r}
    words = {True: "met", False: "missed", None: "not measured"}
    out = []
    for bar in BARS:
        met, figures = judge(bar, run)
        if bar.op in ops and not (met is None and "not run" in figures):
            sign = "<=" if bar.below else ">="
            shape = f" {bar.shapes[0][0]}x{bar.shapes[0][1]}" if bar.shapes is LARGEST else ""
            name = bar.op + (f" {bar.impl}" if bar.impl else "") + shape
            need = _shown(bar.need, bar.text).removesuffix(" x")
            out.append(f"{words[met]:<13}{name} {sign} {need} {bar.text} at M = {figures}")
    return out


def of_result(result: dict[str, Any]) -> list[str]:
    """Say the same of all that a file of results holds, a card's by its own bars."""
    if "card" not in result["about"]:
        return verdicts(result["rows"], result["limits"])
    from card import bars as of_card

    return of_card.verdicts([*result["rows"], *result.get("models", [])])


def main() -> None:
    """Judge saved results, this machine's by default."""
    for path in map(Path, sys.argv[1:] or [str(machine.results_file())]):
        result: dict[str, Any] = json.loads(path.read_text())
        print(f"{result['about']['machine']}, {result['about']['date']}, commit {result['about']['commit']}")
        print("\n".join(of_result(result)))


if __name__ == "__main__":
    main()
