# SPDX-License-Identifier: Apache-2.0
"""A decoder block while one token per sequence is decoded, in two calls; on the CPU alone.

    decode_front   norm (and quantization), q|k|v, rotary
    decode_back    attention, o, norm (and quantization), gate|up, SiLU (and quantization), down

A layer is six arguments, `QuantizedLinear.operands`: its scheme ("int8", "fp8" or "int4"), its packed weight,
the scales of INT8 or FP8 (N elements) or None, the dtype of INT4's ("bf16", "f16" or "f32"), [N, group size,
zero points] and its bias (N,) or None. Bit for bit what the ops of these names give one after the other.
"""

from torch import Tensor

from pennyweight.ops._call import call


def decode_front(
    x: Tensor,
    norm_weight: Tensor,
    eps: float,
    scheme: str,
    weight: Tensor,
    col_scale: Tensor | None,
    scale_dtype: str,
    form: list[int],
    bias: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    kv_heads: int,
    values_begin: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """What a block's attention reads.

    Args:
        x: (..., K), any float; a row for each of B sequences.
        norm_weight: (K,), dtype of ``x``.
        eps: Of the RMSNorm.
        scheme, weight, col_scale, scale_dtype, form, bias: The joint layer of q, k and v.
        cos: (..., D), dtype of ``x``: a row for each of its rows, or one for all.
        sin: As ``cos``.
        heads: Of queries, which begin at the layer's first output; keys follow.
        kv_heads: Of keys and values.
        values_begin: The first output of v.
    Returns:
        q (..., heads · D), rotated; keys (B, kv_heads, 1, D), rotated; values (B, kv_heads, 1, D).
    """
    layer = (scheme, weight, col_scale, scale_dtype, form, bias)
    return call("decode_front", x, norm_weight, eps, *layer, cos, sin, heads, kv_heads, values_begin)


def decode_back(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    mask: Tensor | None,
    residual: Tensor,
    o_scheme: str,
    o_weight: Tensor,
    o_col_scale: Tensor | None,
    o_scale_dtype: str,
    o_form: list[int],
    o_bias: Tensor | None,
    norm_weight: Tensor,
    eps: float,
    up_scheme: str,
    up_weight: Tensor,
    up_col_scale: Tensor | None,
    up_scale_dtype: str,
    up_form: list[int],
    up_bias: Tensor | None,
    intermediate: int,
    down_scheme: str,
    down_weight: Tensor,
    down_col_scale: Tensor | None,
    down_scale_dtype: str,
    down_form: list[int],
    down_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What a block makes of what is cached.

    Args:
        q, keys, values, scale, mask: As `attention_decode`.
        residual: (..., H), dtype of ``q``: the block's input.
        o_scheme, o_weight, o_col_scale, o_scale_dtype, o_form, o_bias: The layer after the attention, of H outputs.
        norm_weight: (H,), dtype of ``q``.
        eps: Of the RMSNorm.
        up_scheme, up_weight, up_col_scale, up_scale_dtype, up_form, up_bias: The joint layer of gate and up, halves.
        intermediate: K of the next layer: how much of a half counts; an INT8 or FP8 layer that follows wants the rest
            to come out as 0, since it is seen in the scale of the codes.
        down_scheme, down_weight, down_col_scale, down_scale_dtype, down_form, down_bias: The last one, of H outputs.
    Returns:
        hidden and y, both (..., H): the block gives their sum.
    """
    o = (o_scheme, o_weight, o_col_scale, o_scale_dtype, o_form, o_bias)
    up = (up_scheme, up_weight, up_col_scale, up_scale_dtype, up_form, up_bias)
    down = (down_scheme, down_weight, down_col_scale, down_scale_dtype, down_form, down_bias)
    attention = (q, keys, values, scale, mask, residual)
    return call("decode_back", *attention, *o, norm_weight, eps, *up, intermediate, *down)
