# SPDX-License-Identifier: Apache-2.0
"""Symmetric scales of a weight, one per row and group, as llm-compressor computes them (see
`reference.py`).
"""

from __future__ import annotations

from torch import Tensor

from pennyweight import ops


def minmax(weight: Tensor, kind: str, group_size: int = -1) -> Tensor:
    """Return the scales that cover each group's largest weight.

    Args:
        weight: (N, K) bfloat16, float16 or float32, contiguous.
        kind: "int8", "int4" or "fp8".
        group_size: Weights along K that share a scale, a divisor of K; -1: the whole row.
    Returns:
        (N, K / group_size) float32, each a value of the weight's dtype.
    Raises:
        ShapeError: `group_size` does not divide K.
    """
    return ops.weight_scales(weight, kind, group_size, "minmax")


def mse(weight: Tensor, kind: str, group_size: int = -1) -> Tensor:
    """Return the scales of least error among 20 that clip up to 19 % of the range: sum |dequantized - w|^2.4.

    Arguments, result and errors as `minmax`.
    """
    return ops.weight_scales(weight, kind, group_size, "mse")
