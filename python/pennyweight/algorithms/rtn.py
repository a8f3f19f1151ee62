# SPDX-License-Identifier: Apache-2.0
"""Round to nearest: no data, each weight by itself."""

from __future__ import annotations

from torch import Tensor

from pennyweight import ops


def quantize_weight(weight: Tensor, scale: Tensor, kind: str, *, group_size: int = -1) -> Tensor:
    """Return clamp(round-half-even(weight / scale)), the quotient in float32.

    Args:
        weight: (N, K) bfloat16, float16 or float32, contiguous.
        scale: (N, K / group_size) float32.
        kind: "int8", "int4" or "fp8" (which saturates at 448).
        group_size: Weights along K that share a scale; -1: the whole row.
    Returns:
        (N, K) int8; uint8 holding E4M3 for "fp8".
    """
    return ops.quantize_weight(weight, scale, group_size, kind)
