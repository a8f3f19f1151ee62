# SPDX-License-Identifier: Apache-2.0
"""Per-token quantization of activations, alone and fused with what produces them.

A token's scale is amax / 127 (INT8) or amax / 448 (FP8), by true division; codes are v / scale, rounded half
to even. A row of zeros has scale 0 and codes 0; NaN or Inf in a row make its scale NaN, so that its outputs are NaN.
"""

from torch import Tensor

from pennyweight.ops._call import call


def quantize_per_token_int8(x: Tensor, smooth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Quantize each token to INT8.

    Args:
        x: (..., K), any float; rows may be strided.
        smooth: (K,) float32, divides ``x`` first (SmoothQuant that was not folded into the weights).
    Returns:
        codes int8 (..., K) in -127..127, and scale float32 (..., 1).
    """
    return call("quantize_per_token_int8", x, smooth)


def quantize_per_token_fp8(x: Tensor, smooth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Quantize each token to FP8: as ``quantize_per_token_int8``, codes uint8 that hold E4M3."""
    return call("quantize_per_token_fp8", x, smooth)


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Add a residual and apply RMSNorm, in one read of the row: the normed row that is quantized below.

    Args:
        x: (..., K), any float.
        weight: (K,), dtype of ``x``.
        eps: Added to the mean of squares.
        residual: Shape and dtype of ``x``.
    Returns:
        normed (..., K), rounded before and after ``weight`` as transformers' RMSNorm is, and
        hidden = x + residual (..., K); without residual hidden has 0 elements.
    """
    return call("rms_norm", x, weight, eps, residual)


def rms_norm_quantize_int8(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Add a residual, apply RMSNorm and quantize each token to INT8, in one read of the row.

    Args:
        x: (..., K), any float.
        weight: (K,), dtype of ``x``.
        eps: Added to the mean of squares.
        residual: Shape and dtype of ``x``.
    Returns:
        codes int8 (..., K), scale float32 (..., 1), and hidden = x + residual (..., K); without residual
        hidden has 0 elements.
    """
    return call("rms_norm_quantize_int8", x, weight, eps, residual)


def rms_norm_quantize_fp8(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``rms_norm_quantize_int8``, codes uint8 that hold E4M3."""
    return call("rms_norm_quantize_fp8", x, weight, eps, residual)


def silu_mul_quantize_int8(gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """Compute silu(gate) * up and quantize each token to INT8, in one read of the row.

    Args:
        gate_up: (..., 2K), any float: gate, then up.
    Returns:
        codes int8 (..., K), and scale float32 (..., 1).
    """
    return call("silu_mul_quantize_int8", gate_up)


def silu_mul_quantize_fp8(gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """As ``silu_mul_quantize_int8``, codes uint8 that hold E4M3."""
    return call("silu_mul_quantize_fp8", gate_up)


def silu_mul(gate_up: Tensor) -> Tensor:
    """Compute silu(gate) * up in one read of the row: what is quantized above.

    Args:
        gate_up: (..., 2K), any float: gate, then up.
    Returns:
        (..., K), rounded before and after the product as transformers' MLP is.
    """
    return call("silu_mul", gate_up)
