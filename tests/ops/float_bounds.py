# SPDX-License-Identifier: Apache-2.0
"""Exact results in float64 of the operators that sum in float32, and how far an implementation may be from them.

A sum of K products in float32, in any order and with or without fused multiply-adds, is off by at most
gamma(K) · Σ|terms| with gamma(n) = n u / (1 - n u), u = 2^-24. Scales and bias add a rounding each; the result is
rounded once to the output's dtype, whose subnormals are 2^-24 apart (float16) or finer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pennyweight import ops

ROUNDOFF = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
EPILOGUE = 4  # roundings after the sum: a product with each scale, a factor inside the sum, the bias


def gamma(n: int) -> float:
    u = n * 2.0**-24
    return u / (1 - u)


def fp8(codes: Tensor) -> Tensor:
    return codes.view(torch.float8_e4m3fn).to(torch.float64)


def exact_and_bound(op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The exact result and the largest allowed distance from it, before the last rounding."""
    if op == "hessian_accumulate":
        h, x = args[0].double(), args[1].double().flatten(0, -2)
        total = h.abs() + x.abs().T @ x.abs()
        return (h + x.T @ x).tril(), gamma(x.shape[0] + EPILOGUE) * total
    operands = {"gemm_w8a8_fp8": _gemm, "linear_w8a8_fp8": _linear, "linear_w4a16": _linear_w4}
    operands["linear_bf16"] = lambda x, weight, bias=None: (x.double(), weight.double(), bias)
    left, right, bias = operands[op](*args, **kwargs)
    added = torch.zeros(right.shape[0]) if bias is None else bias
    total = left.abs() @ right.abs().T + added.double().abs()
    return left @ right.T + added.double(), gamma(left.shape[-1] + EPILOGUE) * total


def assert_within(got: Tensor, exact: Tensor, bound: Tensor, what: str) -> None:
    """Every |got - exact| within the bound after rounding to got's dtype, or the first that is not; NaN fails."""
    u = ROUNDOFF[got.dtype]
    allowed = bound + u * (exact.abs() + bound) + 2.0**-25
    bad = ~((got.double() - exact).abs() <= allowed)
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise AssertionError(
            f"{what}: {int(bad.sum())} of {bad.numel()} wrong, first at {at}: "
            f"{got[at].item()}, not {exact[at].item()} +- {allowed[at].item()}"
        )


def _gemm(
    codes: Tensor, row_scale: Tensor, weight: Tensor, col_scale: Tensor, n: int, bias: Any, *_: Any
) -> tuple[Tensor, Tensor, Any]:
    rows = fp8(codes) * row_scale.double().reshape(*codes.shape[:-1], 1)
    columns = fp8(ops.unpack_fp8(weight, n, codes.shape[-1])) * col_scale.double().reshape(n, 1)
    return rows, columns, bias


def _linear(
    x: Tensor, weight: Tensor, col_scale: Tensor, bias: Any = None, smooth: Any = None
) -> tuple[Tensor, Tensor, Any]:
    codes, scale = ops.quantize_per_token_fp8(x, smooth)
    return _gemm(codes, scale, weight, col_scale, col_scale.numel(), bias)


def _linear_w4(
    x: Tensor, weight: Tensor, n: int, group: int, scale_dtype: str, zeros: bool, bias: Any = None
) -> tuple[Tensor, Tensor, Any]:
    k = x.shape[-1]
    codes, scale, zero = ops.unpack_int4(weight, n, k, group, scale_dtype, zeros)
    each = k // scale.shape[1]
    offset = zero.double().repeat_interleave(each, dim=1) if zeros else torch.zeros(())
    return x.double(), (codes.double() - offset) * scale.double().repeat_interleave(each, dim=1), bias
