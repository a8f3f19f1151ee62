# SPDX-License-Identifier: Apache-2.0
"""Time the quantized linear layers against torch's bfloat16 one: python benchmarks/bench_linear.py --help.

Each result is checked before it is timed, on sampled outputs, against a sum in float64; a wrong one stops the run.
Columns: us is the median, ±% half the distance between the quartiles, %BW and %peak the share of the limits measured in
the same run (bytes of the weight over read bandwidth; operations over the peak of the instruction that the machine has
for the op), vs bf16 torch's median over ours.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import machine

CAP = machine.cap_torch()

import torch  # noqa: E402  (after the cap, which oneDNN reads when it is loaded)

import pennyweight  # noqa: E402, F401
import roofline  # noqa: E402
from harness import Evictor, Side, alternate  # noqa: E402
from pennyweight import _C  # noqa: E402
from weights import OPS, Layer, bf16_layer, error_over_bound  # noqa: E402

SHAPES = "6144x4096,4096x4096,28672x4096,4096x14336"
HEAD = (
    f"{'op':<18}{'impl':<12}{'M':>5}{'N':>7}{'K':>7}{'G':>5}{'us':>11}{'±%':>6}{'GB/s':>8}{'%BW':>6}"
    f"{'GOP/s':>8}{'%peak':>7}{'vs bf16':>9}{'err/bound':>11}"
)
Row = dict[str, Any]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--op", default=",".join(OPS), help="ops, by commas (default: %(default)s)")
    p.add_argument("--impl", default="best", help="best, all, or names by commas, e.g. avx2,avx512vnni")
    p.add_argument("--peers", default="bf16", help="bf16: torch's linear; none")
    p.add_argument("--shapes", default=SHAPES, help="NxK by commas (default: %(default)s)")
    p.add_argument("--m", default="1,16,256", help="tokens, by commas (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=21, help="calls of each side at most")
    p.add_argument("--seconds", type=float, default=2.0, help="time given to each side of each case")
    p.add_argument("--json", type=Path, help="where the rows go")
    p.add_argument("--save", action="store_true", help=f"the same, to {machine.results_file()}")
    return p.parse_args(arguments)


def implementations(op: str, wanted: str) -> list[str]:
    """List the implementations of an op to time that this machine can run, best first."""
    names = _C.ops()[op]["implementations"]
    features = _C.features()
    able = [n for n in names if n == "reference" or features[n]]
    if wanted == "best":
        return able[:1]
    return able if wanted == "all" else [n for n in able if n in wanted.split(",")]


def forced(layer: Layer, x: torch.Tensor, name: str) -> Side:
    """Make a side that runs one implementation."""

    def call() -> torch.Tensor:
        _C.force(name)
        return layer.call(x)

    return Side(name, call)


def check(op: str, name: str, layer: Layer, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor) -> float:
    """Return the error as a share of its bound; stop on a wrong result or another implementation."""
    share = error_over_bound(layer, x, y, rows)
    if not share <= 1:
        sys.exit(
            f"{op} ({name}): wrong result at M={len(x)}: error is {share:.2f} times its bound; not timed"
        )
    if op in OPS and _C.last_run(op) != name:
        sys.exit(f"{op}: {name} was asked for but {_C.last_run(op)} ran")
    return share


def run_case(layers: dict[str, Layer], options: argparse.Namespace, m: int, rows: torch.Tensor,
             evict: Evictor) -> list[Row]:  # fmt: skip
    """Check and time every side of one shape and M."""
    x = torch.randn(m, next(iter(layers.values())).weight.shape[1]).bfloat16()
    sides: list[tuple[str, Side, float]] = []
    for op, layer in layers.items():
        names = implementations(op, options.impl) if op in OPS else ["torch"]
        for name in names:
            side = forced(layer, x, name) if op in OPS else Side(name, lambda layer=layer: layer.call(x))
            begin = time.perf_counter()
            share = check(op, name, layer, x, side.call(), rows)
            if time.perf_counter() - begin < options.seconds:
                side.call()
            sides.append((op, side, share))
    alternate([s for _, s, _ in sides], lambda: evict(x), options.rounds, options.seconds)
    _C.force(None)
    return [row(op, side, share, layers[op], m) for op, side, share in sides]


def row(op: str, side: Side, share: float, layer: Layer, m: int) -> Row:
    """Collect one line of the result; N is filled in by the caller."""
    kind = {"op": op, "impl": side.name} if op in OPS else {"op": "linear", "peer": op}
    return {**kind, "M": m, "K": layer.weight.shape[1], "G": layer.group, "bytes": layer.bytes,
            "median_us": side.median_us, "min_us": side.min_us, "spread": side.spread,
            "calls": len(side.seconds), "error": share}  # fmt: skip


def finish(rows: list[Row], n: int, limits: roofline.Limits) -> None:
    """Add rates, shares of limits and the ratios to torch's bfloat16 and to the plain loops to one case's rows."""
    base = next((r["median_us"] for r in rows if r.get("peer") == "bf16"), None)
    loops = {r["op"]: r["median_us"] for r in rows if r.get("impl") == "reference"}
    for r in rows:
        seconds = r["median_us"] / 1e6
        peak = limits.compute(r["op"])
        r["N"] = n
        r["gb_per_s"] = r["bytes"] / seconds / 1e9
        r["bandwidth_share"] = r["bytes"] / seconds / limits.read
        r["gop_per_s"] = 2 * r["M"] * n * r["K"] / seconds / 1e9
        r["peak_share"] = r["gop_per_s"] * 1e9 / peak if peak else None
        r["vs_bf16"] = base / r["median_us"] if base else None
        r["vs_reference"] = loops[r["op"]] / r["median_us"] if r["op"] in loops else None


def line(r: Row) -> str:
    """Format one row under HEAD."""
    name = r.get("impl") or "peer:" + r["peer"]
    peak = "-" if r["peak_share"] is None else f"{r['peak_share']:.0%}"
    ratio = "-" if r["vs_bf16"] is None else f"{r['vs_bf16']:.2f}x"
    return (
        f"{r['op']:<18}{name:<12}{r['M']:>5}{r['N']:>7}{r['K']:>7}{r['G'] or '-':>5}{r['median_us']:>11.1f}"
        f"{r['spread']:>6.0%}{r['gb_per_s']:>8.1f}{r['bandwidth_share']:>6.0%}{r['gop_per_s']:>8.0f}"
        f"{peak:>7}{ratio:>9}{r['error']:>11.3f}"
    )


def mean(rows: list[Row], ratio: str) -> str:
    """Sum up a ratio over the shapes: geometric mean and the slowest one."""
    if any(r[ratio] is None for r in rows):
        return ""
    value = math.exp(sum(math.log(r[ratio]) for r in rows) / len(rows))
    worst = min(rows, key=lambda r: r[ratio])
    return (
        f"  {ratio.replace('_', ' ')} {value:.2f}x (slowest {worst['N']}x{worst['K']}: {worst[ratio]:.2f}x)"
    )


def means(rows: list[Row]) -> list[str]:
    """Sum up per op, implementation and M."""
    out = []
    mine = [r for r in rows if r.get("impl", "reference") != "reference"]
    for op, impl, m in dict.fromkeys((r["op"], r["impl"], r["M"]) for r in mine):
        of = [r for r in rows if (r["op"], r.get("impl"), r["M"]) == (op, impl, m)]
        out.append(
            f"geomean over {len(of)} shape(s): {op} {impl} M={m}:{mean(of, 'vs_bf16')}{mean(of, 'vs_reference')}"
        )
    return out


def main() -> None:
    """Run the whole grid and print it."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    limits = roofline.measure(options.threads)
    about = {"date": datetime.date.today().isoformat(), "threads": options.threads, **machine.describe()}
    print(f"device {about['machine']} | torch {about['torch']}, commit {about['commit']}, "
          f"{options.threads} threads, oneDNN cap {CAP or 'none'}")  # fmt: skip
    print("limits " + ", ".join(f"{k} {v / 1e9:.0f} G/s" for k, v in limits.to_dict().items()))
    print(HEAD, flush=True)
    evict = Evictor(int(_C.features()["l3_bytes"]))
    cases: list[tuple[int, list[Row]]] = []
    for shape in options.shapes.split(","):
        limits = limits.or_better(roofline.measure(options.threads))
        n, k = map(int, shape.split("x"))
        weight = torch.randn(n, k) * 0.02
        sample = torch.randperm(n)[:64]
        layers = {op: OPS[op](weight, sample) for op in options.op.split(",")}
        if options.peers == "bf16":
            layers["bf16"] = bf16_layer(weight, sample)
        del weight
        for m in map(int, options.m.split(",")):
            case = run_case(layers, options, m, sample, evict)
            finish(case, n, limits)
            cases.append((n, case))
            print("\n".join(map(line, case)), flush=True)
    for n, case in cases:  # once more, by the best limits seen
        finish(case, n, limits)
    rows = [row for _, case in cases for row in case]
    print("\n".join(means(rows)))
    for path in filter(None, [options.json, machine.results_file() if options.save else None]):
        path.parent.mkdir(parents=True, exist_ok=True)
        result = {"schema": 1, "about": about, "limits": limits.to_dict(), "rows": rows}
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
