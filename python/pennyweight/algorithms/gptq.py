# SPDX-License-Identifier: Apache-2.0
"""GPTQ (Frantar et al., arXiv 2210.17323): rounding that knows which inputs a layer sees.

With H = X^T X over the calibration tokens, the codes q are sought that minimize (w - q s) H (w - q s)^T row
by row. Columns are rounded one after the other, each one's error handed on to those not yet done, as much as
H says that they can make up for. The scales are fixed before, on the original weight. "static" act-order
visits columns in order of falling diag H and leaves the groups where they are, so nothing of it is left at
run time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pennyweight import ops
from pennyweight.errors import UnsupportedError
from pennyweight.ops import gptq_on_card


@dataclass(frozen=True)
class Solution:
    """What GPTQ found, and how well.

    Attributes:
        codes: (N, K) int8.
        damping: Share of the mean diagonal that was added; None: the Hessian was never positive definite
            (damping was raised tenfold a few times), and the codes are those of rounding to nearest.
        dead_columns: Inputs that were zero in every token; their weights are zero.
        output_error: |X (W - Q)^T| / |X W^T|, Frobenius norms over the calibration tokens.
        weight_error: |W - Q| / |W|.
    """

    codes: Tensor
    damping: float | None
    dead_columns: int
    output_error: float
    weight_error: float


def solve(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    *,
    bits: int,
    group_size: int,
    damping: float,
    act_order: str,
) -> Solution:
    """Quantize a weight and tell how it went; arguments as `quantize_weight`."""
    ordered = _is_ordered(act_order)
    codes, stats = ops.gptq_quantize(weight, hessian, scale, bits, group_size, damping, ordered)
    return _solution(codes, stats)


def solve_layers(
    weights: Sequence[Tensor],
    hessians: Sequence[Tensor],
    scales: Sequence[Tensor],
    *,
    bits: int,
    group_size: int,
    damping: float,
    act_order: str,
) -> list[Solution]:
    """Quantize layers, each as `solve` does; on a card those of one shape side by side, which fills it better.

    Args:
        weights, hessians, scales: Of each layer, as `quantize_weight`.
        bits, group_size, damping, act_order: Of all of them.
    """
    ordered = _is_ordered(act_order)
    same = {(tuple(weight.shape), weight.dtype, weight.device) for weight in weights}
    if len(same) == 1 and weights[0].is_cuda:
        weight, hessian, scale = (torch.stack(list(tensors)) for tensors in (weights, hessians, scales))
        found = gptq_on_card.gptq_quantize_layers(weight, hessian, scale, bits, group_size, damping, ordered)
        return [_solution(*layer) for layer in zip(*found, strict=True)]
    return [
        _solution(*ops.gptq_quantize(*layer, bits, group_size, damping, ordered))
        for layer in zip(weights, hessians, scales, strict=True)
    ]


def _is_ordered(act_order: str) -> bool:
    if act_order not in ("static", "none"):
        raise UnsupportedError(f"gptq: act_order must be 'static' or 'none'; got {act_order!r}")
    return act_order == "static"


def _solution(codes: Tensor, stats: Tensor) -> Solution:
    used, dead, error, energy, weight_error = stats.tolist()
    return Solution(
        codes=codes,
        damping=used if used >= 0 else None,
        dead_columns=int(dead),
        output_error=ratio(error, energy),
        weight_error=math.sqrt(weight_error),
    )


def quantize_weight(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    *,
    group_size: int,
    damping: float = 0.01,
    act_order: str = "static",
    bits: int = 4,
) -> Tensor:
    """Return the codes of a weight by GPTQ.

    Args:
        weight: (N, K) bfloat16, float16 or float32, contiguous.
        hessian: (K, K) float32, X^T X over tokens; only the lower triangle is read. Its overall factor is of
            no matter.
        scale: (N, K / group_size) float32.
        group_size: Weights along K that share a scale; -1: the whole row.
        damping: Added to the diagonal, as a share of its mean.
        act_order: "static" or "none".
        bits: 4 or 8.
    Returns:
        (N, K) int8: -8..7 or -128..127.
    Raises:
        ShapeError: Sizes that do not fit each other.
    """
    options = {"bits": bits, "group_size": group_size}
    return solve(weight, hessian, scale, damping=damping, act_order=act_order, **options).codes


def ratio(error: float, energy: float) -> float:
    """Return the relative error of two squared norms; 0 where there is neither."""
    return math.sqrt(max(error, 0.0) / energy) if energy > 0 else 0.0
