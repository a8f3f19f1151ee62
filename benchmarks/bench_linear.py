# SPDX-License-Identifier: Apache-2.0
"""Time the quantized linear layers beside the programs that compute the same: python benchmarks/bench_linear.py --help.

Each result is checked before it is timed; a wrong one is not timed, and ours stops the run. Columns:
  us, ±%      median of calls with a cold weight, and half the distance between the quartiles
  %BW, best   bytes of the weight per second, as a share of the read bandwidth measured after every call: of medians,
              and of the fastest call by the fastest reading
  %peak       operations as a share of the peak of the instruction that the implementation multiplies with (for a peer:
              the best one that this machine has for the op), measured after every call for a millisecond; by medians
  vs bf16     torch's bfloat16 linear over this
  vs peer     the fastest peer that computes the same kind of product over this
  error       against the weight before it was quantized, relative (Frobenius), on sampled outputs
  bound       of ours: error against the exact sum of the codes, as a share of what rounding may do at most
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import machine

CAP = machine.cap_torch()

import torch  # noqa: E402  (after the cap, which oneDNN reads when it is loaded)

import bars  # noqa: E402
import peers  # noqa: E402
import pennyweight  # noqa: E402, F401
import results  # noqa: E402
import roofline  # noqa: E402
from harness import SMALL, Side, alternate  # noqa: E402
from pennyweight import _C  # noqa: E402
from results import Row, geometric_mean  # noqa: E402
from weights import OPS, Layer, error_over_bound, relative_error  # noqa: E402

SHAPES = "6144x4096,4096x4096,28672x4096,4096x14336"
ALL_M = "1,2,4,8,16,17,32,64,128,256,1024"
HEAD = (
    f"{'op':<18}{'impl or peer':<27}{'M':>5}{'N':>7}{'K':>7}{'us':>11}{'±%':>5}{'GB/s':>7}{'%BW':>6}{'best':>6}"
    f"{'GOP/s':>8}{'%peak':>7}{'vs bf16':>9}{'vs peer':>9}{'error':>8}{'bound':>7}"
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--device",
        default="cpu",
        choices=["cpu", "cuda"],
        help="cuda: beside torch's on a card (card/linear.py)",
    )
    p.add_argument("--op", default=",".join(OPS), help="ops, by commas (default: %(default)s)")
    p.add_argument("--impl", default="best", help="best, all, or names by commas, e.g. avx2,avx512vnni")
    listed = f"bf16 (torch's), {', '.join(peers.RUNTIMES)}, or names: {', '.join(peers.PEERS)}"
    p.add_argument("--peers", default="bf16", help=f"all, none, or by commas {listed} (default: %(default)s)")
    p.add_argument("--shapes", default=SHAPES, help="NxK by commas (default: %(default)s)")
    p.add_argument("--m", default="1,16,256", help=f"tokens, by commas; all: {ALL_M} (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=21, help="calls of each side at most")
    p.add_argument("--seconds", type=float, default=2.0, help="time given to each side of each case")
    p.add_argument("--json", type=Path, help="where the rows go")
    p.add_argument(
        "--save", action="store_true", help=f"also into {machine.results_file()}, in place of older ones"
    )
    return p.parse_args(arguments)


def implementations(op: str, wanted: str) -> list[str]:
    """List the implementations of an op to time that this machine can run, best first."""
    names = _C.ops()[op]["implementations"]
    features = _C.features()
    able = [n for n in names if n == "reference" or features[n]]
    if wanted == "best":
        return able[:1]
    return able if wanted == "all" else [n for n in able if n in wanted.split(",")]


def forced(layer: Layer, x: torch.Tensor, name: str) -> torch.Tensor:
    """Run one implementation."""
    _C.force(name)
    return layer.call(x)


class Shape:
    """One weight in all formats, ours and the peers'.

    Args:
        n, k: Its shape.
        options: The command line.
        crew: The peers' workers.
        memory: Evicts, and measures the read bandwidth and instructions' peaks.
        limits: Measured before; what this machine can measure.
    """

    def __init__(
        self,
        n: int,
        k: int,
        options: argparse.Namespace,
        crew: peers.Crew,
        memory: roofline.Memory,
        limits: roofline.Limits,
    ) -> None:
        weight = torch.randn(n, k) * 0.02
        self.options, self.crew, self.memory, self.limits = options, crew, memory, limits
        self.n, self.k = n, k
        self.sample = torch.randperm(n)[:256]
        self.dense = weight[self.sample]
        self.layers = {op: OPS[op](weight, self.sample[:64]) for op in options.op.split(",")}
        self.small = {op: OPS[op](weight[:SMALL], self.sample[:0]) for op in self.layers}
        crew.prepare(weight.numpy())

    def show_eviction(self) -> str:
        """Say how long reading a packed weight takes when it is in the caches, as far as it fits, and evicted."""
        packed = next(iter(self.layers.values())).packed
        parts = []
        for bytes_ in (1 << 20, packed.nbytes):  # a part that fits each core's own cache, all
            read = partial(self.memory.read_of, packed.data_ptr(), min(bytes_, packed.nbytes))
            warm, cold = [], []
            for _ in range(7):
                self.memory.evict()
                cold.append(read() * 1e6)
                warm.append(read() * 1e6)
            times = f"{statistics.median(cold):.0f} us, again at once {statistics.median(warm):.0f} us"
            parts.append(f"{bytes_ / 1e6:.1f} MB take {times}")
        return f"evicted, reading the weight {self.n}x{self.k}: {'; '.join(parts)}"

    def _peak(self, op: str, impl: str | None = None) -> dict[str, Any]:
        """Say what measures an op's peak: arguments of a side."""
        name = self.limits.instruction(op, impl)
        return {"peak": partial(self.memory.limit, roofline.PEAKS[name])} if name else {}

    def _ours(self, op: str, impl: str, x: torch.Tensor) -> tuple[Side, Row]:
        """Check one implementation."""
        layer = self.layers[op]
        ready = partial(forced, self.small[op], x, impl)
        side = Side(impl, partial(forced, layer, x, impl), ready=ready, **self._peak(op, impl))
        begin = time.perf_counter()
        y = forced(layer, x, impl)
        if time.perf_counter() - begin < self.options.seconds:
            side.call()
        share = error_over_bound(layer, x, y, self.sample[:64])
        if not share <= 1:
            sys.exit(f"{op} ({impl}): wrong result at M={len(x)}, {self.n}x{self.k}: error is {share:.2f} times its "
                     "bound; not timed")  # fmt: skip
        if _C.last_run(op) != impl:
            sys.exit(f"{op}: {impl} was asked for but {_C.last_run(op)} ran")
        error = relative_error(x, y, self.dense, self.sample)
        return side, {
            "op": op,
            "impl": impl,
            "instruction": self.limits.instruction(op, impl),
            "G": layer.group,
            "bytes": layer.bytes,
            "error": error,
            "bound": share,
        }

    def _peer(self, name: str, x: torch.Tensor) -> tuple[Side, Row] | None:
        """Check one peer; a wrong or failing one is reported and left out."""
        op = peers.PEERS[name]
        try:
            y, _ = self.crew.run(name)
        except peers.PeerFailed as why:
            print(f"peer:{name} M={len(x)} {self.n}x{self.k}: {why}", flush=True)
            return None
        error = relative_error(x, torch.from_numpy(y), self.dense, self.sample)
        if not error <= peers.MOST_ERROR[op]:
            print(f"peer:{name} M={len(x)} {self.n}x{self.k}: wrong result, relative error {error:.3g} "
                  f"(at most {peers.MOST_ERROR[op]}); not timed", flush=True)  # fmt: skip
            return None
        side = Side("peer:" + name, lambda: None, partial(self.crew.time, name), **self._peak(op))
        return side, {"op": op, "peer": name, "bytes": self.crew.sizes[name], "error": error}

    def run(self, m: int) -> list[Row]:
        """Check and time every side at one M."""
        x = torch.randn(m, self.k).bfloat16()
        self.crew.input(x.float().numpy())
        sides = [
            self._ours(op, impl, x) for op in self.layers for impl in implementations(op, self.options.impl)
        ]
        sides += filter(None, [self._peer(name, x) for name in list(self.crew.sizes)])
        alternate([side for side, _ in sides], self.memory.evict, self.options.rounds, self.options.seconds,
                  self.memory.read)  # fmt: skip
        _C.force(None)
        sizes = {"M": m, "N": self.n, "K": self.k}
        return [{**row, **sizes, **timing(side, row["bytes"], m * self.n * self.k)} for side, row in sides]


def timing(side: Side, bytes_: int, products: int) -> Row:
    """Sum up what a side took."""
    median, least = side.median_us / 1e6, side.min_us / 1e6
    return {"median_us": side.median_us, "min_us": side.min_us, "spread": side.spread, "calls": len(side.seconds),
            "gb_per_s": bytes_ / median / 1e9, "gop_per_s": 2 * products / median / 1e9,
            "read_gb_per_s": statistics.median(side.limits) / 1e9,
            "bandwidth_share": bytes_ / median / statistics.median(side.limits),
            "best_bandwidth_share": bytes_ / least / max(side.limits),
            "peak_share": 2 * products / median / statistics.median(side.peaks) if side.peaks else None,
            "best_peak_share": 2 * products / least / max(side.peaks) if side.peaks else None}  # fmt: skip


def compare(rows: list[Row]) -> None:
    """Add the ratios to torch, to peers and to the plain loops to a case's rows."""
    base = next((r["median_us"] for r in rows if r.get("peer") == "torch_bf16"), None)
    loops = {r["op"]: r["median_us"] for r in rows if r.get("impl") == "reference"}
    for r in rows:
        rivals = [other for other in rows if other.get("peer") and other["op"] == r["op"] and r.get("impl")]
        best = min(rivals, key=lambda other: float(other["median_us"]), default=None)
        r["vs_bf16"] = base / r["median_us"] if base else None
        r["vs_peer"] = best["median_us"] / r["median_us"] if best else None
        r["best_peer"] = best["peer"] if best else None
        r["vs_reference"] = loops[r["op"]] / r["median_us"] if r["op"] in loops else None


def line(r: Row) -> str:
    """Format one row under HEAD."""

    def some(value: Any, form: str, after: str = "") -> str:
        return "-" if value is None else f"{value:{form}}{after}"

    return (
        f"{r['op']:<18}{results.side(r):<27}{r['M']:>5}{r['N']:>7}{r['K']:>7}{r['median_us']:>11.1f}"
        f"{r['spread']:>5.0%}{r['gb_per_s']:>7.1f}{r['bandwidth_share']:>6.0%}{r['best_bandwidth_share']:>6.0%}"
        f"{r['gop_per_s']:>8.0f}{some(r['peak_share'], '.0%'):>7}{some(r['vs_bf16'], '.2f', 'x'):>9}"
        f"{some(r['vs_peer'], '.2f', 'x'):>9}{r['error']:>8.4f}{some(r.get('bound'), '.2f'):>7}"
    )


def mean(rows: list[Row], ratio: str, name: str) -> str:
    """Sum up a ratio over the shapes: geometric mean and the slowest one."""
    if any(r[ratio] is None for r in rows):
        return ""
    worst = min(rows, key=lambda r: float(r[ratio]))
    value = geometric_mean([r[ratio] for r in rows])
    return f", {value:.2f}x {name} (slowest {worst['N']}x{worst['K']}: {worst[ratio]:.2f}x)"


def means(rows: list[Row]) -> list[str]:
    """Sum up per op, implementation and M."""
    out = []
    mine = [r for r in rows if r.get("impl", "reference") != "reference"]
    for op, impl, m in dict.fromkeys((r["op"], r["impl"], r["M"]) for r in mine):
        of = [r for r in mine if (r["op"], r["impl"], r["M"]) == (op, impl, m)]
        out.append(f"geomean over {len(of)} shape(s): {op} {impl} M={m}{mean(of, 'vs_bf16', 'torch bf16')}"
                   f"{mean(of, 'vs_peer', 'best peer')}{mean(of, 'vs_reference', 'plain loops')}")  # fmt: skip
    return out


def wanted_peers(options: argparse.Namespace) -> list[str]:
    """List those of the peers asked for that compute what one of the ops does, or the same in bfloat16."""
    kinds = {*options.op.split(","), "linear_bf16"}
    return [name for name in peers.chosen(options.peers) if peers.PEERS[name] in kinds]


def on_card(options: argparse.Namespace) -> None:
    """Time on a card; shapes, M, op and impl as asked."""
    import bench_card
    from card import bars, linear
    from card.timing import Clock

    bench_card.refuse_without_card()
    shapes = tuple((int(n), int(k)) for n, _, k in (s.partition("x") for s in options.shapes.split(",")))
    m = tuple(map(int, (ALL_M if options.m == "all" else options.m).split(",")))
    only = tuple(op for op in options.op.split(",") if _C.ops()[op]["cuda"])
    rows = linear.measure(Clock(options.rounds), options.impl, shapes, m, only)
    print("\n".join(bars.verdicts(rows)))
    for path, keep in ((options.json, False), (bench_card.results_file() if options.save else None, True)):
        if path:
            results.save(path, bench_card.about(), {}, rows, keep=keep)


def main() -> None:
    """Run the whole grid and print it."""
    options = parse()
    if options.device == "cuda":
        return on_card(options)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cache = int(_C.features()["l3_bytes"])
    memory = roofline.Memory(options.threads, cache)
    limits = memory.limits()
    about = {"date": datetime.date.today().isoformat(), "threads": options.threads, **machine.describe()}
    print(f"device {about['machine']} | torch {about['torch']}, commit {about['commit']}, "
          f"{options.threads} threads, oneDNN cap {CAP or 'none'}")  # fmt: skip
    cases: list[list[Row]] = []
    with peers.crew(
        wanted_peers(options), [str(options.threads), str(roofline.library()), str(cache)]
    ) as crew:
        for runtime, why in crew.absent.items():
            print(f"peer:{runtime}: {why}")
        print("limits " + ", ".join(f"{k} {v / 1e9:.0f}" for k, v in limits.to_dict().items()) + " G/s")
        for shape in options.shapes.split(","):
            case = Shape(*map(int, shape.split("x")), options, crew, memory, limits)
            print(case.show_eviction())
            for name, why in crew.refused.items():
                print(f"peer:{name} {shape}: {why}")
            print(HEAD, flush=True)
            for m in map(int, (ALL_M if options.m == "all" else options.m).split(",")):
                limits = limits.or_better(memory.limits(rounds=1))
                cases.append(case.run(m))
                compare(cases[-1])
                print("\n".join(map(line, cases[-1])), flush=True)
            rows = [row for case in cases for row in case]
            if options.json:
                results.save(options.json, about, limits.to_dict(), rows, keep=False)
            if options.save:
                results.save(machine.results_file(), about, limits.to_dict(), rows, keep=True)
    print(
        "limits " + ", ".join(f"{k} {v / 1e9:.0f}" for k, v in limits.to_dict().items()) + " G/s, best seen"
    )
    print("\n".join(means(rows)))
    slower = results.slower_than_larger(rows)
    print("\n".join(slower) or "no M is slower than a larger one (5 % slack on medians)")
    print("\n".join(bars.verdicts(rows, limits.to_dict())))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
