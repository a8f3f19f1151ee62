# SPDX-License-Identifier: Apache-2.0
"""Between the checkpoint's layout, the kernels' layout (docs/layouts.md) and floats."""

from torch import Tensor

from pennyweight.ops._call import call


def pack_int8(codes: Tensor) -> Tensor:
    """Lay out INT8 codes int8 (N, K) for the kernels of their device: a flat uint8 tensor.

    On the CPU N is rounded up to 64 and K to 4; on a card K to 16.
    """
    return call("pack_int8", codes)


def unpack_int8(weight: Tensor, n: int, k: int) -> Tensor:
    """The codes int8 (N, K) that ``pack_int8`` was given."""
    return call("unpack_int8", weight, n, k)


def dequantize_int8(weight: Tensor, scale: Tensor, n: int, k: int) -> Tensor:
    """code · scale as float32 (N, K); scale float32 (N,) or (N, 1)."""
    return call("dequantize_int8", weight, scale, n, k)


def pack_fp8(codes: Tensor) -> Tensor:
    """Lay out E4M3 codes uint8 (N, K) for the kernels of their device: a flat uint8 tensor.

    On the CPU N is rounded up to 64 and K to 4; on a card K to 16.
    """
    return call("pack_fp8", codes)


def unpack_fp8(weight: Tensor, n: int, k: int) -> Tensor:
    """The codes uint8 (N, K) that ``pack_fp8`` was given."""
    return call("unpack_fp8", weight, n, k)


def dequantize_fp8(weight: Tensor, scale: Tensor, n: int, k: int) -> Tensor:
    """code · scale as float32 (N, K); scale float32 (N,) or (N, 1)."""
    return call("dequantize_fp8", weight, scale, n, k)


def pack_int4(codes: Tensor, scale: Tensor, zeros: Tensor | None, scale_dtype: str) -> Tensor:
    """Lay out 4-bit codes with their scales and zero points for the kernels.

    Args:
        codes: int8 (N, K), values -8..7.
        scale: float32 (N, K / G), G being 32, 64, 128 or K; each exactly representable in ``scale_dtype``.
        zeros: int8 (N, K / G), values -8..7, or None; w = (code - zero) · scale.
        scale_dtype: "bf16", "f16" or "f32": what scales are kept in.
    Returns:
        A flat uint8 tensor.
    """
    return call("pack_int4", codes, scale, zeros, scale_dtype)


def unpack_int4(
    weight: Tensor, n: int, k: int, group_size: int, scale_dtype: str, zero_points: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The codes int8 (N, K), scale float32 (N, K / G) and zeros int8 (N, K / G) that ``pack_int4`` was given.

    Without zero points ``zeros`` has 0 elements.
    """
    return call("unpack_int4", weight, n, k, group_size, scale_dtype, zero_points)


def dequantize_int4(
    weight: Tensor, n: int, k: int, group_size: int, scale_dtype: str, zero_points: bool
) -> Tensor:
    """(code - zero) · scale as float32 (N, K)."""
    return call("dequantize_int4", weight, n, k, group_size, scale_dtype, zero_points)


def pack_nibbles(codes: Tensor) -> Tensor:
    """The checkpoint's 4-bit words: int8 (R, C) in -8..7 → int32 (R, ceil(C / 8)), low nibble first."""
    return call("pack_nibbles", codes)


def unpack_nibbles(words: Tensor, columns: int) -> Tensor:
    """The codes int8 (R, columns) in int32 words (R, ceil(columns / 8))."""
    return call("unpack_nibbles", words, columns)
