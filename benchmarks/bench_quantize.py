# SPDX-License-Identifier: Apache-2.0
"""Time the quantization of activations, alone and fused: python benchmarks/bench_quantize.py --help.

Two questions, one row each. Each result is checked before it is timed: what its codes stand for may be off by half a
step, and by what bfloat16 rounds.
  8192 x 8192   bytes read and written per second, as a share of the copy bandwidth measured after every call (of
                medians, and of the fastest call by the fastest copy). Results go to memory that the process has
                already, as the copy's do; "fresh us" is the best time when the system must give the pages first.
  one token     the op with everything warm, as after the op before it, as a share of the W8A8 product that follows in a
                layer of Llama-3.1-8B, whose weight is cold
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import machine

machine.cap_torch()

import torch  # noqa: E402  (after the cap, which oneDNN reads when it is loaded)
from torch import Tensor  # noqa: E402

import bars  # noqa: E402
import results  # noqa: E402
import roofline  # noqa: E402
from bench_linear import implementations  # noqa: E402
from harness import SMALL, Side, alternate  # noqa: E402
from pennyweight import _C, ops  # noqa: E402
from results import Row  # noqa: E402

SIZE = 8192
EPS = 1e-5
HEAD = (
    f"{'op':<26}{'impl':<12}{'M':>6}{'K':>7}{'us':>11}{'±%':>5}{'fresh us':>11}{'GB/s':>7}{'%copy':>7}{'best':>6}"
    f"{'of linear':>11}{'bound':>7}"
)
#: The product that follows (N, K): of the attention's output, of q/k/v, of the MLP's output.
FOLLOWS = {
    "quantize_per_token": (4096, 4096),
    "rms_norm_quantize": (6144, 4096),
    "silu_mul_quantize": (4096, 14336),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--op", default=",".join(bars.QUANTIZATIONS), help="ops, by commas (default: all)")
    p.add_argument("--impl", default="best", help="best, all, or names by commas, e.g. avx2,avx512vnni")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=15, help="calls of each side at most")
    p.add_argument("--seconds", type=float, default=1.0, help="time given to each side of each case")
    p.add_argument("--json", type=Path, help="where the rows go")
    p.add_argument(
        "--save", action="store_true", help=f"also into {machine.results_file()}, in place of older ones"
    )
    return p.parse_args(arguments)


@dataclass
class Case:
    """One op on (M, K): its inputs, the call, and what it should have quantized."""

    inputs: list[Tensor]
    call: Callable[[], tuple[Tensor, ...]]
    values: Callable[[int], Tensor]

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return sum(t.nbytes for t in (*self.inputs, *self.call()))


def case_of(op: str, m: int, k: int) -> Case:
    """Make an op's inputs, normally distributed; ``values(rows)`` is in float64."""
    function = getattr(ops, op)
    x = torch.randn(m, 2 * k if op.startswith("silu") else k, dtype=torch.bfloat16)
    if op.startswith("quantize"):
        return Case([x], lambda: function(x), lambda rows: x[:rows].double())
    if op.startswith("silu"):

        def product(rows: int) -> Tensor:
            gate, up = x[:rows].double().chunk(2, -1)
            return torch.nn.functional.silu(gate) * up

        return Case([x], lambda: function(x), product)
    weight, residual = torch.rand(k).bfloat16() + 0.5, torch.randn(m, k, dtype=torch.bfloat16)

    def normed(rows: int) -> Tensor:
        hidden = (x[:rows].double() + residual[:rows].double()).bfloat16().double()
        return hidden * (hidden.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight.double()

    return Case([x, residual, weight], lambda: function(x, weight, EPS, residual), normed)


def check(op: str, impl: str, case: Case) -> float:
    """Return the largest error as a share of its bound, on the first rows; stop on a wrong result."""
    _C.force(impl)
    codes, scale, *_ = case.call()
    rows = min(32, len(codes))
    exact = case.values(rows)
    grid = codes[:rows] if codes.dtype == torch.int8 else codes[:rows].view(torch.float8_e4m3fn)
    off = (grid.double() * scale[:rows].double() - exact).abs()
    amax = exact.abs().amax(-1, keepdim=True)
    step = amax / 127 if codes.dtype == torch.int8 else torch.maximum(exact.abs() / 8, amax / 448 / 512)
    # Two roundings of values to bfloat16, of which the largest also moves the scale
    share = float((off / (step / 2 + 2 * 2.0**-8 * (exact.abs() + amax / 127) + 1e-30)).max())
    if not share <= 1:
        sys.exit(
            f"{op} ({impl}): wrong result at {tuple(codes.shape)}: error is {share:.2f} times its bound; not timed"
        )
    if _C.last_run(op) != impl:
        sys.exit(f"{op}: {impl} was asked for but {_C.last_run(op)} ran")
    return share


def keep_memory() -> None:
    """Let the C library keep what is freed instead of giving it back to the system."""
    code = ctypes.CDLL(None)
    if not (code.mallopt(-4, 0) and code.mallopt(-1, 2**31 - 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
        sys.exit("mallopt refused; %copy would count the system's work")


def forced(impl: str, call: Callable[[], object]) -> object:
    """Run one implementation."""
    _C.force(impl)
    return call()


def fresh_us(op: str, impls: list[str]) -> dict[str, float]:
    """Time the large case with results in new pages; the best of five calls of each implementation."""
    case = case_of(op, SIZE, SIZE)
    return {impl: min(warm_us(partial(forced, impl, case.call), calls=1)) for impl in impls}


def many_rows(
    op: str, fresh: dict[str, float], options: argparse.Namespace, memory: roofline.Memory
) -> list[Row]:
    """Time an op's large case with each implementation."""
    rows = []
    case = case_of(op, SIZE, SIZE)
    for impl, new_us in fresh.items():
        share = check(op, impl, case)
        side = Side(impl, partial(forced, impl, case.call))
        alternate([side], memory.evict, options.rounds, options.seconds, memory.copy)
        rate = case.bytes / side.median_us * 1e6
        rows.append({"op": op, "impl": impl, "M": SIZE, "N": 0, "K": SIZE, "bytes": case.bytes,
                     "median_us": side.median_us, "min_us": side.min_us, "spread": side.spread, "fresh_us": new_us,
                     "gb_per_s": rate / 1e9, "copy_share": rate / statistics.median(side.limits),
                     "best_copy_share": case.bytes / side.min_us * 1e6 / max(side.limits),
                     "error": share, "bound": share})  # fmt: skip
        print(line(rows[-1]), flush=True)
    return rows


def warm_us(call: Callable[[], object], calls: int = 200) -> list[float]:
    """Time calls one after the other, in microseconds each: medians of five of ``calls``."""
    out = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        out.append((time.perf_counter() - begin) / calls * 1e6)
    return out


def product_after(op: str, n: int, k: int) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """Return the W8A8 product of (N, K) that takes an op's codes."""
    column = torch.ones(n)
    if op.endswith("int8"):
        packed = ops.pack_int8(torch.randint(-127, 128, (n, k), dtype=torch.int8))
        gemm = ops.gemm_w8a8_int8
    else:
        packed = ops.pack_fp8(torch.randn(n, k).to(torch.float8_e4m3fn).view(torch.uint8))
        gemm = ops.gemm_w8a8_fp8
    return lambda made: gemm(made[0], made[1], packed, column, n, None, torch.bfloat16)


def one_row(op: str, impl: str, options: argparse.Namespace, memory: roofline.Memory) -> Row:
    """Time one token's quantization and the product that follows."""
    n, k = FOLLOWS[op.rpartition("_")[0]]
    case = case_of(op, 1, k)
    share = check(op, impl, case)
    codes = case.call()
    product, small = product_after(op, n, k), product_after(op, SMALL, k)
    _C.force(None)
    after = Side("gemm", lambda: product(codes), ready=lambda: small(codes))
    after.call()
    alternate([after], memory.evict, options.rounds, options.seconds)
    _C.force(impl)
    times = warm_us(case.call)
    us = statistics.median(times)
    row = {"op": op, "impl": impl, "M": 1, "N": n, "K": k, "bytes": case.bytes, "error": share, "bound": share,
           "median_us": us, "min_us": min(times), "linear_us": after.median_us,
           "share_of_linear": us / after.median_us}  # fmt: skip
    print(line(row), flush=True)
    return row


def line(r: Row) -> str:
    """Format one row under HEAD."""

    def some(name: str, form: str) -> str:
        value: Any = r.get(name)
        return "-" if value is None else format(value, form)

    return (
        f"{r['op']:<26}{r['impl']:<12}{r['M']:>6}{r['K']:>7}{r['median_us']:>11.1f}{some('spread', '.0%'):>5}"
        f"{some('fresh_us', '.0f'):>11}{some('gb_per_s', '.1f'):>7}{some('copy_share', '.0%'):>7}"
        f"{some('best_copy_share', '.0%'):>6}{some('share_of_linear', '.1%'):>11}{r['bound']:>7.2f}"
    )


def main() -> None:
    """Run and print."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    memory = roofline.Memory(options.threads, int(_C.features()["l3_bytes"]))
    limits = memory.limits()
    about = {"date": datetime.date.today().isoformat(), "threads": options.threads, **machine.describe()}
    print(f"device {about['machine']} | torch {about['torch']}, commit {about['commit']}, {options.threads} threads | "
          f"copy {limits.copy / 1e9:.1f} GB/s\n{HEAD}", flush=True)  # fmt: skip
    able = {op: implementations(op, options.impl) for op in options.op.split(",")}
    rows = [one_row(op, impl, options, memory) for op, impls in able.items() for impl in impls]
    fresh = {op: fresh_us(op, impls) for op, impls in able.items()}
    keep_memory()
    for op in able:
        rows += many_rows(op, fresh[op], options, memory)
    _C.force(None)
    print("\n".join(bars.verdicts(rows, limits.to_dict())))
    if options.json:
        results.save(options.json, about, limits.to_dict(), rows, keep=False)
    if options.save:
        results.save(machine.results_file(), about, limits.to_dict(), rows, keep=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
