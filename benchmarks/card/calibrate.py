# SPDX-License-Identifier: Apache-2.0
"""Calibration on a card: a Hessian, and GPTQ of all linear layers of an 8B model from given Hessians."""

from __future__ import annotations

import time

import torch

from card.timing import Clock
from pennyweight import _C, ops
from pennyweight.algorithms import gptq, scales
from results import Row

#: The linear layers of a block of Llama-3.1-8B, (N, K); layers that share their input share a Hessian.
BLOCK = ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
BLOCKS = 32


def hessian(clock: Clock, tokens: int = 131072, k: int = 8192) -> Row:
    """Accumulate x^T x over many tokens; operations are counted as 2 T K^2, of which half the tiles are computed."""
    x = torch.randn(tokens, k, device="cuda", dtype=torch.bfloat16)
    small = x[:4096, :512].contiguous()
    h = torch.zeros(512, 512, device="cuda")
    ops.hessian_accumulate(h, small)
    exact = (small.double().T @ small.double()).tril()
    error = float((h.double().tril() - exact).norm() / exact.norm())
    if not error <= 1e-5:
        raise SystemExit(
            f"hessian_accumulate is wrong on this card, relative error {error:.3g}; it was not timed"
        )
    h = torch.zeros(k, k, device="cuda")
    us = clock.median_us(lambda: ops.hessian_accumulate(h, x), rounds=5)
    row = {"op": "hessian_accumulate", "impl": _C.last_cuda_run("hessian_accumulate"), "M": tokens, "N": 0, "K": k,
           "median_us": us, "error": error, "tflop_per_s": 2 * tokens * k * k / us / 1e6}  # fmt: skip
    print(
        f"hessian_accumulate {tokens} x {k}: {us / 1e3:.1f} ms, {row['tflop_per_s']:.0f} TFLOP/s", flush=True
    )
    return row


def all_layers(block: tuple[tuple[int, int], ...] = BLOCK, blocks: int = BLOCKS, measured: int = 8) -> Row:
    """Scales (MSE) and codes (GPTQ, groups of 128, static act-order) of a model's layers; blocks are alike."""
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) * 0.02 for n, k in block]
    hessians = {}
    for k in {k for _, k in block}:
        x = torch.randn(2 * k, k, device="cuda", dtype=torch.bfloat16)
        hessians[k] = torch.zeros(k, k, device="cuda")
        ops.hessian_accumulate(hessians[k], x)

    def one_block() -> None:
        for weight in weights:
            scale = scales.mse(weight, "int4", 128)
            h = hessians[weight.shape[1]]
            found = gptq.solve(weight, h, scale, bits=4, group_size=128, damping=0.01, act_order="static")
            if found.damping is None:
                raise SystemExit("gptq_quantize failed on this card; it was not timed")

    one_block()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(measured):
        one_block()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / measured * blocks
    print(
        f"GPTQ of {blocks} blocks from given Hessians: {seconds:.1f} s ({measured} blocks measured)",
        flush=True,
    )
    return {"op": "gptq_quantize", "impl": "all layers of 8B", "M": blocks, "N": 0, "K": 0,
            "median_us": seconds * 1e6, "measured_blocks": measured}  # fmt: skip
