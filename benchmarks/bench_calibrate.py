# SPDX-License-Identifier: Apache-2.0
"""Time calibration and packing beside torch, and GPTQ beside llm-compressor's: benchmarks/bench_calibrate.py --help.

GFLOP/s count T·K·(K + 1) for the Hessian (torch's full product is held against the same count), K³/3 for a
factorization, K³/3 + N·K² for GPTQ; %peak is against the instruction that the implementation uses. Packing and scales
are in billions of codes per second. Every result is checked before it is timed.
"""

from __future__ import annotations

import argparse
import datetime
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import machine

machine.cap_torch()

import torch  # noqa: E402  (after the cap, which oneDNN reads when it is loaded)
from torch import Tensor  # noqa: E402

import bars  # noqa: E402
import calibrate_peer  # noqa: E402
import results  # noqa: E402
import roofline  # noqa: E402
from harness import Side, alternate  # noqa: E402
from pennyweight import _C, ops  # noqa: E402

HEAD = f"{'op':<18}{'impl':<12}{'N':>7}{'K':>7}{'ms':>10}{'±%':>6}{'Gop/s':>9}{'%peak':>7}{'vs torch':>10}"


@dataclass
class Case:
    """One op on one size: what it counts as, the peak to hold it against (0: none), torch's way (or none)."""

    op: str
    n: int
    k: int
    work: float
    call: Callable[[], object]
    torch: Callable[[], object] | None = None
    peak: Callable[[str], float] = lambda name: 0.0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--impl", default="best", help="best, or all but the plain loops")
    p.add_argument("--shapes", default="4096x4096", help="NxK by commas (default: %(default)s)")
    p.add_argument(
        "--tokens", type=int, default=2048, help="tokens behind a Hessian (an update has at most 2048)"
    )
    p.add_argument(
        "--peers", default="none", choices=["none", "llmcompressor"], help="compare GPTQ with, and only that"
    )
    p.add_argument("--peer-rounds", type=int, default=3, help="solves of each side beside a peer")
    p.add_argument("--json", type=Path, help="write rows here")
    p.add_argument(
        "--save", action="store_true", help=f"also into {machine.results_file()}, in place of older ones"
    )
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--seconds", type=float, default=5.0, help="time given to each side")
    return p.parse_args(arguments)


def hessian_case(tokens: int, k: int, dtype: torch.dtype, limits: roofline.Limits) -> Case:
    """x^T x, checked on its first rows against float64."""
    x, h = torch.randn(tokens, k).to(dtype), torch.zeros(k, k)
    whole = x.float()
    exact = whole[:, :64].double().T @ whole[:, :64].double()
    bound = (tokens + 2) * 2.0**-24 * (whole[:, :64].abs().double().T @ whole[:, :64].abs().double())

    def call() -> Tensor:
        h.zero_()
        ops.hessian_accumulate(h, x)
        return h

    if not bool(((call()[:64, :64] - exact).abs() <= bound)[torch.ones(64, 64).tril() > 0].all()):
        sys.exit("hessian_accumulate: wrong result; not timed")
    dots = dtype == torch.bfloat16
    peak = lambda name: limits.bf16 if dots and name == "avx512bf16" else limits.fma  # noqa: E731
    name = "hessian " + str(dtype).removeprefix("torch.")
    return Case(name, tokens, k, tokens * k * (k + 1.0), call, lambda: whole.T @ whole, peak)


def gptq_cases(n: int, k: int, limits: roofline.Limits) -> list[Case]:
    """GPTQ beside torch's factorization alone, which is a part of it."""
    x = torch.randn(2 * k, k) * torch.rand(k).exp()
    h = x.T @ x
    weight = (torch.randn(n, k) * 0.02).bfloat16()
    scale = ops.weight_scales(weight, "int4", 128, "minmax")

    def call() -> tuple[Tensor, Tensor]:
        return ops.gptq_quantize(weight, h, scale, 4, 128, 0.01, True)

    nearest = ops.quantize_weight(weight, scale, 128, "int4") * scale.repeat_interleave(128, 1)
    rows = weight.float() - nearest
    if not float(call()[1][2]) < float(((rows @ h) * rows).sum()):
        sys.exit("gptq_quantize: no better than rounding to nearest; not timed")
    damped = h + 0.01 * h.diagonal().mean() * torch.eye(k)
    factor = Case("torch cholesky", 0, k, k**3 / 3, lambda: torch.linalg.cholesky(damped))
    solve = Case("gptq int4 g128", n, k, k**3 / 3 + n * k * k, call, peak=lambda name: limits.fma)
    return [solve, factor]


def weight_cases(n: int, k: int) -> list[Case]:
    """Scales, codes and layouts of one weight."""
    weight = (torch.randn(n, k) * 0.02).bfloat16()
    scale, channel = (ops.weight_scales(weight, s, g, "minmax") for s, g in (("int4", 128), ("int8", -1)))
    codes4, codes8 = (
        ops.quantize_weight(weight, scale, 128, "int4"),
        ops.quantize_weight(weight, channel, -1, "int8"),
    )
    panel4, panel8 = ops.pack_int4(codes4, scale, None, "bf16"), ops.pack_int8(codes8)
    if not torch.equal(ops.unpack_int8(panel8, n, k), codes8):
        sys.exit("pack_int8: codes do not come back; not timed")
    calls: dict[str, Callable[[], object]] = {
        "weight_scales mse": lambda: ops.weight_scales(weight, "int4", 128, "mse"),
        "weight_scales": lambda: ops.weight_scales(weight, "int8", -1, "minmax"),
        "quantize_weight": lambda: ops.quantize_weight(weight, channel, -1, "int8"),
        "pack_int8": lambda: ops.pack_int8(codes8),
        "unpack_int8": lambda: ops.unpack_int8(panel8, n, k),
        "pack_int4": lambda: ops.pack_int4(codes4, scale, None, "bf16"),
        "dequantize_int4": lambda: ops.dequantize_int4(panel4, n, k, 128, "bf16", False),
        "pack_nibbles": lambda: ops.pack_nibbles(codes4),
    }
    return [Case(name, n, k, float(n * k), call) for name, call in calls.items()]


def implementations(case: Case, wanted: str) -> list[str]:
    """List the implementations to time, best first."""
    known = _C.ops().get(
        {"hessian": "hessian_accumulate", "gptq": "gptq_quantize"}.get(op := case.op.split()[0], op)
    )
    if known is None:
        return ["torch"]
    features = _C.features()
    able = [n for n in known["implementations"] if n == "reference" or features[n]]
    return able[:1] if wanted == "best" else [n for n in able if n != "reference"] or able


def sides_of(case: Case, wanted: str) -> list[Side]:
    """One side per implementation, and torch's."""

    def forced(name: str) -> Side:
        def call() -> object:
            _C.force(None if name == "torch" else name)
            return case.call()

        return Side(name, call)  # type: ignore[arg-type]

    sides = [forced(name) for name in implementations(case, wanted)]
    return sides + ([Side("torch", case.torch)] if case.torch else [])  # type: ignore[arg-type]


def show(case: Case, sides: list[Side]) -> list[results.Row]:
    """Print one line per side; return rows for --json."""
    rows = []
    torch_us = next((s.median_us for s in sides if s.name == "torch"), math.nan)
    for side in sides:
        rate, peak = case.work / side.median_us * 1e6, case.peak(side.name)
        share = f"{rate / peak:.0%}" if peak else "-"
        ratio = f"{torch_us / side.median_us:.2f}x" if torch_us == torch_us else "-"
        print(
            f"{case.op:<18}{side.name:<12}{case.n:>7}{case.k:>7}{side.median_us / 1e3:>10.2f}{side.spread:>6.0%}"
            f"{rate / 1e9:>9.2f}{share:>7}{ratio:>10}",
            flush=True,
        )
        name = {"peer": "torch"} if side.name == "torch" else {"impl": side.name}
        times = {"median_us": side.median_us, "min_us": side.min_us}
        rows.append({"op": case.op, **name, "M": 0, "N": case.n, "K": case.k, **times})
    return rows


def main() -> None:
    """Run and print."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    limits = roofline.measure(options.threads)
    print(f"device {machine.name()} | threads {options.threads} | torch {torch.__version__}")
    print(
        f"peaks: fma {limits.fma / 1e9:.0f}, bf16 dot {limits.bf16 / 1e9:.0f} GFLOP/s"
        + ("\n" + HEAD if options.peers == "none" else "")
    )
    rows: list[results.Row] = []
    for shape in options.shapes.split(","):
        n, k = (int(v) for v in shape.split("x"))
        if options.peers != "none":
            rows += calibrate_peer.compare(n, k, options.tokens, options.threads, options.peer_rounds)
            continue
        update = min(options.tokens, calibrate_peer.UPDATE)
        hessians = [hessian_case(update, k, d, limits) for d in (torch.float32, torch.bfloat16)]
        for case in hessians + gptq_cases(n, k, limits) + weight_cases(n, k):
            sides = sides_of(case, options.impl)
            for side in sides:
                side.call()
            alternate(sides, lambda: None, options.rounds, options.seconds)
            _C.force(None)
            rows += show(case, sides)
    print("\n".join(bars.verdicts(rows, limits.to_dict())))
    about = {"date": datetime.date.today().isoformat(), "threads": options.threads, **machine.describe()}
    if options.json:
        results.save(options.json, about, limits.to_dict(), rows, keep=False)
    if options.save:
        results.save(machine.results_file(), about, limits.to_dict(), rows, keep=True)


if __name__ == "__main__":
    main()
