# SPDX-License-Identifier: Apache-2.0
"""Quantization of activations, alone and fused with what produces them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from card.timing import Clock
from pennyweight import ops
from results import Row

SIZES = ((8192, 8192), (8192, 4096), (8192, 14336), (256, 4096), (16, 4096), (1, 4096))


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
                raise SystemExit(f"quantize_per_token_{kind} is wrong on this card; nothing was timed")


def measure(clock: Clock, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Row]:
    """Time every op at every size, as a share of a copy of as many bytes."""
    check()
    print(f"{'op':<34}{'M':>6}{'K':>7}{'us':>10}{'GB/s':>9}{'%copy':>8}")
    rows = []
    for m, k in sizes:
        copy = clock.copy_gb_per_s(2 * m * k)
        for op, (call, moved) in calls(m, k).items():
            us = clock.median_us(call)
            speed = moved / us / 1e3
            rows.append({"op": op, "impl": "sm80", "M": m, "N": 0, "K": k, "median_us": us, "gb_per_s": speed,
                         "copy_share": speed / copy})  # fmt: skip
            print(f"{op:<34}{m:>6}{k:>7}{us:>10.1f}{speed:>9.0f}{speed / copy:>8.1%}", flush=True)
    return rows
