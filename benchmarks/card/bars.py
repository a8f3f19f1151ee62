# SPDX-License-Identifier: Apache-2.0
"""What the kernels are to reach on an H200, and whether a run does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from results import Row


@dataclass(frozen=True)
class Bar:
    """One bar: what it is about, the figure of a row, the bound, and whether less is better."""

    name: str
    about: Callable[[Row], bool]
    figure: Callable[[Row], float | None]
    bound: float
    less: bool = False

    def verdict(self, rows: list[Row]) -> str:
        """Met where every row that it is about is within the bound."""
        figures = [f for f in (self.figure(r) for r in rows if self.about(r)) if f is not None]
        if not figures:
            return f"{'not measured':<13}{self.name}"
        worst = max(figures) if self.less else min(figures)
        met = worst <= self.bound if self.less else worst >= self.bound
        sign = "<=" if self.less else ">="
        return f"{'met' if met else 'missed':<13}{self.name} {sign} {self.bound:g}: {worst:.3g}"


def _linear(op: str, n: int, k: int, low: int, high: int) -> Callable[[Row], bool]:
    return lambda r: (
        r.get("op") == op and "impl" in r and r["N"] == n and r["K"] == k and low <= r["M"] <= high
    )


def _scaled_mm(rows: list[Row]) -> Bar:
    """Against torch's row-wise product of the same run."""
    peer = next((r for r in rows if r.get("peer") == "torch_scaled_mm" and _cube(r)), None)
    figure = lambda r: peer["median_us"] / r["median_us"] if peer else None  # noqa: E731
    return Bar(
        "FP8 GEMM 8192^3, of torch's row-wise", _linear("gemm_w8a8_fp8", 8192, 8192, 8192, 8192), figure, 0.97
    )


def _cube(r: Row) -> bool:
    return bool(r["M"] == r["N"] == r["K"] == 8192)


def verdicts(rows: list[Row]) -> list[str]:
    """Hold a run's rows, models among them, against all bars."""

    def copy_share(r: Row) -> float:
        return float(r["copy_share"])

    def rate(r: Row) -> float:
        return float(r["tflop_per_s"])

    def time(r: Row) -> float:
        return float(r["median_us"])

    def ratio(r: Row) -> float:
        return float(r["vs_bf16"])

    square = (8192, 8192)
    bars = [
        Bar("quantization 8192 x 8192, share of a copy", lambda r: "quantize" in r.get("op", "") and
            (r["M"], r["K"]) == square and r["N"] == 0, copy_share, 0.85),
        Bar("FP8 GEMM 8192^3, TFLOP/s", _linear("gemm_w8a8_fp8", *square, 8192, 8192), rate, 1300),
        _scaled_mm(rows),
        Bar("FP8 GEMM M = 1..64, share of a copy", _linear("gemm_w8a8_fp8", *square, 1, 64), copy_share, 0.60),
        Bar("INT8 GEMM M >= 2048, TOPS", _linear("gemm_w8a8_int8", *square, 2048, 8192), rate, 1200),
        Bar("INT8 GEMM M >= 2048, of bf16", _linear("gemm_w8a8_int8", *square, 2048, 8192), ratio, 1.5),
        Bar("W4A16 M = 1..16, 8192^2, us", _linear("linear_w4a16", *square, 1, 16), time, 20, less=True),
        Bar("W4A16 M = 1..16, 121 MB, share of a copy", _linear("linear_w4a16", 28672, 8192, 1, 16), copy_share, 0.55),
        Bar("W4A16 M >= 4096, of bf16", _linear("linear_w4a16", *square, 4096, 8192), ratio, 0.93),
        Bar("Hessian, TFLOP/s", lambda r: r.get("op") == "hessian_accumulate", rate, 500),
        Bar("GPTQ of an 8B model, us", lambda r: r.get("op") == "gptq_quantize", time, 60e6, less=True),
        Bar("decode W4A16-INT, of bf16", lambda r: r.get("format") == "W4A16-INT", lambda r: r["decode_vs_bf16"], 1.9),
        Bar("decode W8A8-FP, of bf16", lambda r: r.get("format") == "W8A8-FP", lambda r: r["decode_vs_bf16"], 1.3),
    ]  # fmt: skip
    return [bar.verdict(rows) for bar in bars]
