# SPDX-License-Identifier: Apache-2.0
"""The linear layers and their GEMMs beside torch's: bfloat16 mm, _scaled_mm by rows, _int_mm.

Each result is checked against the product of the weight before it was quantized; a wrong one is not timed, and ours
stops the run. A linear layer's time has the quantization of x in it, a GEMM's has not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from card.timing import Clock
from pennyweight import _C, ops
from results import Row

SHAPES = (
    (8192, 8192),
    (28672, 8192),
    (8192, 28672),
    (6144, 4096),
    (4096, 4096),
    (28672, 4096),
    (4096, 14336),
)
ROWS = (1, 4, 16, 17, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
GROUP = 128
#: What a result may be off by, relative to the unquantized product (Frobenius): rounding of weights and activations.
MOST_ERROR = {"w8a8_int8": 0.02, "w8a8_fp8": 0.05, "w4a16": 0.15, "bf16": 0.01}


@dataclass
class Weights:
    """One random weight in every format, on the card."""

    dense: Tensor  # bfloat16 (N, K)

    def __post_init__(self) -> None:
        wide = self.dense.float()
        n, k = wide.shape
        amax = wide.abs().amax(1)
        self.int8_scale, self.fp8_scale = amax / 127.5, amax / 448
        self.int8 = (wide / self.int8_scale[:, None]).round_().clamp_(-128, 127).to(torch.int8)
        self.fp8 = (wide / self.fp8_scale[:, None]).clamp_(-448, 448).to(torch.float8_e4m3fn)
        scale = (wide.view(n, k // GROUP, GROUP).abs().amax(2) / 7.5).bfloat16().float()
        codes = (wide.view(n, k // GROUP, GROUP) / scale[:, :, None]).round_().clamp_(-8, 7)
        self.int8_packed = ops.pack_int8(self.int8)
        self.fp8_packed = ops.pack_fp8(self.fp8.view(torch.uint8))
        self.int4_packed = ops.pack_int4(codes.view(n, k).to(torch.int8), scale, None, "bf16")


Call = Callable[[], Tensor]


def ours(w: Weights, x: Tensor) -> dict[str, tuple[Call, int]]:
    """Each op on this input, and the bytes of its weight."""
    n = len(w.dense)
    int8, int8_scale = ops.quantize_per_token_int8(x)
    fp8, fp8_scale = ops.quantize_per_token_fp8(x)

    def gemm_fp8(fast: bool) -> Tensor:
        args = (fp8, fp8_scale, w.fp8_packed, w.fp8_scale, n, None, torch.bfloat16, fast)
        return torch.ops.pennyweight.gemm_w8a8_fp8(*args)  # type: ignore[no-any-return]

    eight, four = w.int8_packed.nbytes, w.int4_packed.nbytes
    return {
        "linear_w8a8_fp8": (lambda: ops.linear_w8a8_fp8(x, w.fp8_packed, w.fp8_scale), eight),
        "gemm_w8a8_fp8": (lambda: gemm_fp8(True), eight),
        "gemm_w8a8_fp8 exact": (lambda: gemm_fp8(False), eight),
        "linear_w8a8_int8": (lambda: ops.linear_w8a8_int8(x, w.int8_packed, w.int8_scale), eight),
        "gemm_w8a8_int8": (
            lambda: ops.gemm_w8a8_int8(
                int8, int8_scale, w.int8_packed, w.int8_scale, n, None, torch.bfloat16
            ),
            eight,
        ),
        "linear_w4a16": (lambda: ops.linear_w4a16(x, w.int4_packed, n, GROUP, "bf16", False), four),
    }


def theirs(w: Weights, x: Tensor) -> dict[str, tuple[Call, int]]:
    """What torch has of the same kind; its FP8 and INT8 products start from codes, as our gemm_* do."""
    codes, scale = ops.quantize_per_token_fp8(x)
    int8, _ = ops.quantize_per_token_int8(x)
    inputs = codes.view(torch.float8_e4m3fn)

    def scaled(fast: bool) -> Tensor:
        by_column = w.fp8_scale[None, :]
        options = {"out_dtype": torch.bfloat16, "use_fast_accum": fast}
        return torch._scaled_mm(inputs, w.fp8.T, scale_a=scale, scale_b=by_column, **options)

    found: dict[str, tuple[Call, int]] = {
        "torch_bf16_mm": (lambda: x @ w.dense.T, w.dense.nbytes),
        "torch_scaled_mm": (lambda: scaled(True), w.fp8.nbytes),
        "torch_scaled_mm exact": (lambda: scaled(False), w.fp8.nbytes),
    }
    if len(x) > 16:
        found["torch_int_mm"] = (lambda: torch._int_mm(int8, w.int8.T), w.int8.nbytes)
    return found


@contextmanager
def forced(name: str) -> Iterator[None]:
    """Let one implementation run."""
    _C.force(name)
    try:
        yield
    finally:
        _C.force(None)


def implementations(op: str, wanted: str) -> list[str]:
    """The op's implementations for cards to try, best first; "best": the one that runs by itself."""
    return [""] if wanted == "best" else list(_C.ops()[op.split()[0]]["cuda"])


def measure(
    clock: Clock,
    impl: str = "best",
    shapes: tuple[tuple[int, int], ...] = SHAPES,
    rows: tuple[int, ...] = ROWS,
    only: tuple[str, ...] = (),
) -> list[Row]:
    """Time every side of every case; ``only``: these ops."""
    head = f"{'op':<22}{'impl or peer':<24}{'M':>6}{'N':>7}{'K':>7}{'us':>10}{'TFLOP/s':>9}{'GB/s':>7}{'%copy':>7}"
    copy = clock.copy_gb_per_s(1 << 29)
    print(f"copy {copy:.0f} GB/s\n{head}{'vs bf16':>9}{'error':>9}")
    found: list[Row] = []
    for n, k in shapes:
        weights = Weights(torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * 0.02)
        for m in rows:
            x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
            case = _case(clock, weights, x, impl, only)
            base = next((r["median_us"] for r in case if r.get("peer") == "torch_bf16_mm"), None)
            for row in case:
                row["copy_share"] = row["gb_per_s"] / copy
                row["vs_bf16"] = base / row["median_us"] if base else None
                print(_line(row), flush=True)
            found += case
    return found


def _case(clock: Clock, weights: Weights, x: Tensor, impl: str, only: tuple[str, ...]) -> list[Row]:
    exact = x.float() @ weights.dense.float().T
    rows = []
    for op, (call, bytes_) in ours(weights, x).items():
        if only and op.split()[0] not in only:
            continue
        for name in implementations(op, impl):
            with forced(name) if name else _as_it_is():
                row = _timed(clock, call, exact, _kind(op))
                ran = _C.last_cuda_run(op.split()[0])
            if name and ran != name:
                continue  # it does not fit here, and another one ran
            if "failed" in row:
                if name:
                    print(f"{op} {name} M={len(x)}: {row['failed']}")
                    continue
                raise SystemExit(f"{op} M={len(x)}: {row['failed']}; nothing more is timed")
            rows.append(_row(op, {"impl": ran}, x, weights, bytes_, row))
    for peer, (call, bytes_) in theirs(weights, x).items():
        kind = "" if peer == "torch_int_mm" else "bf16" if "bf16" in peer else "w8a8_fp8"
        row = _timed(clock, call, exact, kind)
        if "failed" in row:
            print(f"{peer} M={len(x)}: {row['failed']}")
            continue
        rows.append(_row("linear", {"peer": peer}, x, weights, bytes_, row))
    return rows


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


def _kind(op: str) -> str:
    return op.split()[0].partition("_")[2]


def _timed(clock: Clock, call: Call, exact: Tensor, kind: str) -> Row:
    """Check and time; where the result is wrong or the call raises, why. Without a kind: bare sums, not checked."""
    try:
        y = call()
        error = float((y.float() - exact).norm() / exact.norm()) if kind else None
        if error is not None and not error <= MOST_ERROR[kind]:
            return {"failed": f"wrong result, relative error {error:.3g} (at most {MOST_ERROR[kind]})"}
        return {"median_us": clock.median_us(call), "error": error}
    except (RuntimeError, NotImplementedError) as why:
        return {"failed": str(why).splitlines()[0][:200]}


def _row(op: str, side: dict[str, str], x: Tensor, weights: Weights, bytes_: int, timed: Row) -> Row:
    (m, k), n = x.shape, len(weights.dense)
    seconds = timed["median_us"] / 1e6
    return {"op": op, **side, "M": m, "N": n, "K": k, **timed, "bytes": bytes_,
            "tflop_per_s": 2 * m * n * k / seconds / 1e12, "gb_per_s": bytes_ / seconds / 1e9}  # fmt: skip


def _line(row: Row) -> str:
    side = row.get("impl") or "peer:" + row["peer"]
    error = "-" if row["error"] is None else f"{row['error']:.4f}"
    ratio = "-" if row["vs_bf16"] is None else f"{row['vs_bf16']:.2f}x"
    speed = (
        f"{row['median_us']:>10.1f}{row['tflop_per_s']:>9.1f}{row['gb_per_s']:>7.0f}{row['copy_share']:>7.1%}"
    )
    return f"{row['op']:<22}{side:<24}{row['M']:>6}{row['N']:>7}{row['K']:>7}{speed}{ratio:>9}{error:>9}"
