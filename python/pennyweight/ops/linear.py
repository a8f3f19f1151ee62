# SPDX-License-Identifier: Apache-2.0
"""Linear layers, y = x · dequantize(weight)ᵀ + bias, and the GEMMs of the 8-bit ones on codes already there.

INT8 sums exactly in int32, everything else in float32; scales and bias follow in float32, with one rounding
at the end.
"""

import torch
from torch import Tensor

from pennyweight.ops._call import call


def gemm_w8a8_int8(
    codes: Tensor,
    row_scale: Tensor | None,
    weight: Tensor,
    col_scale: Tensor | None,
    n: int,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """Multiply INT8 codes by a packed INT8 weight: (acc · row_scale) · col_scale + bias.

    Args:
        codes: (..., K) int8.
        row_scale: float32, one per row of ``codes``; None for int32.
        weight: From ``pack_int8`` of (N, K).
        col_scale: (N,) or (N, 1) float32; None for int32.
        n: N.
        bias: (N,) of ``out_dtype``.
        out_dtype: Any float, or int32 for the bare accumulators.
    Returns:
        (..., N) of ``out_dtype``.
    """
    return call("gemm_w8a8_int8", codes, row_scale, weight, col_scale, n, bias, out_dtype)


def gemm_w8a8_fp8(
    codes: Tensor,
    row_scale: Tensor,
    weight: Tensor,
    col_scale: Tensor,
    n: int,
    bias: Tensor | None,
    out_dtype: torch.dtype,
    fast_accum: bool = True,
) -> Tensor:
    """Multiply FP8 codes by a packed FP8 weight: as ``gemm_w8a8_int8``, with codes uint8 and no int32.

    ``fast_accum`` lets tensor cores sum in their shorter accumulator; a CPU always sums in float32.
    """
    args = (codes, row_scale, weight, col_scale, n, bias, out_dtype, fast_accum)
    return call("gemm_w8a8_fp8", *args)


def linear_w8a8_int8(
    x: Tensor, weight: Tensor, col_scale: Tensor, bias: Tensor | None = None, smooth: Tensor | None = None
) -> Tensor:
    """Quantize x per token to INT8 and multiply: ``quantize_per_token_int8``, ``gemm_w8a8_int8`` in one call.

    Args:
        x: (..., K), any float; rows may be strided.
        weight: From ``pack_int8`` of (N, K).
        col_scale: (N,) or (N, 1) float32; its size says N.
        bias: (N,), dtype of ``x``.
        smooth: (K,) float32, divides ``x`` first.
    Returns:
        (..., N), dtype of ``x``.
    """
    return call("linear_w8a8_int8", x, weight, col_scale, bias, smooth)


def linear_w8a8_fp8(
    x: Tensor,
    weight: Tensor,
    col_scale: Tensor,
    bias: Tensor | None = None,
    smooth: Tensor | None = None,
    fast_accum: bool = True,
) -> Tensor:
    """As ``linear_w8a8_int8``, with FP8 codes and a weight from ``pack_fp8``.

    ``fast_accum`` as in ``gemm_w8a8_fp8``.
    """
    return call("linear_w8a8_fp8", x, weight, col_scale, bias, smooth, fast_accum)


def linear_w4a16(
    x: Tensor,
    weight: Tensor,
    n: int,
    group_size: int,
    scale_dtype: str,
    zero_points: bool,
    bias: Tensor | None = None,
) -> Tensor:
    """Apply a 4-bit linear layer to floating activations.

    Args:
        x: (..., K), any float; rows may be strided.
        weight: From ``pack_int4`` of (N, K); scales and zero points are inside.
        n: N.
        group_size: 32, 64, 128, or -1 (one scale per channel).
        scale_dtype: "bf16", "f16" or "f32": what the scales inside ``weight`` are.
        zero_points: Whether ``weight`` has zero points.
        bias: (N,), dtype of ``x``.
    Returns:
        (..., N), dtype of ``x``.
    """
    return call("linear_w4a16", x, weight, n, group_size, scale_dtype, zero_points, bias)


def linear_w4a8_int8(
    x: Tensor,
    weight: Tensor,
    n: int,
    group_size: int,
    scale_dtype: str,
    zero_points: bool,
    bias: Tensor | None = None,
    smooth: Tensor | None = None,
) -> Tensor:
    """Quantize x per token to INT8 and multiply by a 4-bit weight: arguments of ``linear_w4a16``.

    ``smooth`` (K,) float32 divides ``x`` first.
    """
    args = (x, weight, n, group_size, scale_dtype, zero_points, bias, smooth)
    return call("linear_w4a8_int8", *args)


def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer whose weight stays in bfloat16, as an LM head's often does.

    Made for few rows, where reading the weight is all the work; when torch's is the faster one, ``LinearBF16`` says. A
    row's result does not depend on the other rows.

    Args:
        x: (..., K) bfloat16; rows may be strided.
        weight: (N, K) bfloat16, as ``nn.Linear`` and ``nn.Embedding`` hold it: it is neither packed nor copied (only
            one whose rows are not contiguous in themselves is, each time).
        bias: (N,) bfloat16.
    Returns:
        (..., N) bfloat16, summed in float32 and rounded once.
    """
    return call("linear_bf16", x, weight, bias)
