# SPDX-License-Identifier: Apache-2.0
"""Run by test_torch_ops.py: what measures on a card, at tiny sizes on a fake one; times mean nothing."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from fake_card import run  # before torch

import torch  # isort: skip

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import results
from card import activations, bars, calibrate, linear, timing


class Event:
    """Of a card on which everything takes a millisecond."""

    def __init__(self, enable_timing: bool) -> None: ...
    def record(self) -> None: ...
    def synchronize(self) -> None: ...
    def elapsed_time(self, _: "Event") -> float:
        return 1.0


class Stream:
    """The one there is."""

    def wait_stream(self, _: "Stream") -> None: ...


torch.cuda.Event, torch.cuda.Stream, torch.cuda.current_stream = Event, Stream, Stream
torch.cuda.stream = lambda _: contextlib.nullcontext()
torch.cuda.synchronize = torch.cuda.empty_cache = lambda: None


def graph_of(call: Any) -> Any:
    """There is no graph to capture; the call stands for its replay."""
    call()
    return call


timing.graph_of = graph_of
CLOCK = timing.Clock(rounds=2, flush_bytes=64)


def test_activations() -> None:
    activations.check = lambda: None  # 64 x 8192 takes the emulator a while
    rows = activations.measure(CLOCK, ((8, 64),))
    assert len(rows) == 10 and all(row["median_us"] == 1e3 for row in rows)


def test_linear() -> None:
    torch._scaled_mm = torch._int_mm = lambda *_, **__: (_ for _ in ()).throw(
        RuntimeError("not on this card")
    )
    rows = linear.measure(CLOCK, "all", ((128, 128),), (4, 17))
    sides = {(row["op"], row.get("impl") or row["peer"]) for row in rows}
    assert ("linear_w8a8_int8", "sm80") in sides and ("linear_w4a16", "sm80") in sides, sides
    assert ("linear", "torch_bf16_mm") in sides
    assert all(row["error"] < 0.15 for row in rows)
    kept = results.merge({}, {"date": "", "commit": ""}, {}, rows)["rows"]
    assert len(kept) == len(rows)


def test_calibrate() -> None:
    row = calibrate.hessian(CLOCK, tokens=64, k=512)
    assert row["tflop_per_s"] > 0
    assert calibrate.all_layers(((64, 128), (32, 128)), blocks=4, measured=1)["measured_blocks"] == 1


def test_bars() -> None:
    fast = {"op": "gemm_w8a8_fp8", "impl": "sm90", "M": 8192, "N": 8192, "K": 8192, "tflop_per_s": 1400.0,
            "median_us": 800.0, "copy_share": 0.1, "vs_bf16": 1.7}  # fmt: skip
    peer = {"op": "linear", "peer": "torch_scaled_mm", "M": 8192, "N": 8192, "K": 8192, "median_us": 700.0}
    said = dict(
        line.split(maxsplit=1)[::-1] for line in bars.verdicts([fast, peer]) if not line.startswith("not")
    )
    assert said == {
        "FP8 GEMM 8192^3, TFLOP/s >= 1300: 1.4e+03": "met",
        "FP8 GEMM 8192^3, of torch's row-wise >= 0.97: 0.875": "missed",
    }, said
    assert len(bars.verdicts([])) == 13


run(dict(globals()))
