# SPDX-License-Identifier: Apache-2.0
"""What stands between a decoder layer's linear layers when a token is decoded; on the CPU alone."""

from torch import Tensor

from pennyweight.ops._call import call


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of whole heads, whose halves are rotated into each other (Llama's).

    Args:
        x: (..., heads · D), any float; D even.
        cos: (..., D), dtype of ``x``: a row for each of its rows, or one for all.
        sin: As ``cos``.
    Returns:
        x · cos + (-x₂, x₁) · sin, head by head, rounded as transformers' ``apply_rotary_pos_emb`` is; shape of ``x``.
    """
    return call("rotary", x, cos, sin)


def attention_decode(
    q: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None = None
) -> Tensor:
    """Attention of one new token per sequence to all that are cached, its own among them.

    Args:
        q: (B, heads · D), any float, or with dimensions of size 1 between.
        keys: (B, kv_heads, T, D), dtype of ``q``; heads is a multiple of kv_heads.
        values: As ``keys``.
        scale: What scores are multiplied with: 1 / √D.
        mask: (B, T) bool: False where a key does not count (padding). A query without any key gets 0.
    Returns:
        softmax(scale · q · keysᵀ) · values in float32, rounded once; shape of ``q``.
    """
    return call("attention_decode", q, keys, values, scale, mask)
