# SPDX-License-Identifier: Apache-2.0
"""How weights are found: Hessians, GPTQ, scales, rounding, SmoothQuant.

group_size is any divisor of K here, or -1 (one scale per channel); K / G is then the number of groups.
"""

from torch import Tensor

from pennyweight.ops._call import call


def hessian_accumulate(h: Tensor, x: Tensor) -> None:
    """Add xᵀ · x to the lower triangle of ``h``, in place.

    Args:
        h: float32 (K, K), contiguous; the upper triangle is neither read nor written.
        x: (..., K), any float.
    """
    call("hessian_accumulate", h, x)


def gptq_quantize(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    bits: int,
    group_size: int,
    damping: float,
    act_order: bool,
) -> tuple[Tensor, Tensor]:
    """Round a weight against given scales so that the layer's output error stays small (GPTQ).

    Args:
        weight: (N, K), any float.
        hessian: float32 (K, K), of which the lower triangle is read.
        scale: float32 (N, K / G), found on the original weight.
        bits: 8 or 4.
        group_size: Elements of K that share a scale, or -1.
        damping: Times the mean of the Hessian's diagonal, added to it; raised tenfold while factoring fails.
        act_order: Visit columns in order of falling diagonal ("static": groups stay where they are).
    Returns:
        codes int8 (N, K); stats float64 (5,): damping used (below 0: the Hessian was never positive definite
        and the codes are those of rounding to nearest), dead columns, Σ (w-q)H(w-q)ᵀ, Σ wHwᵀ,
        Σ (w-q)² / Σ w².
    """
    args = (weight, hessian, scale, bits, group_size, damping, act_order)
    return call("gptq_quantize", *args)


def gptq_columns(
    factor: Tensor,
    sums: Tensor,
    scale: Tensor,
    group: Tensor,
    residual: Tensor,
    codes: Tensor,
    loss: Tensor,
    first: int,
    bits: int,
) -> None:
    """Decide 128 columns of GPTQ, in place, for layers of one shape (L, N, K), columns in order of visit.

    With H = R Rᵀ, R upper triangular: target_i = w_i + (sums_i + Σ_{first<=j<i} d_j R_ji) / R_ii,
    q_i = clamp(round(target_i / s_i)), d_i = w_i - q_i s_i. `ops/gptq_on_card.py` makes a whole solve of it.

    Args:
        factor: float32 (L, K, K): R.
        sums: float32 (L, N, K): Σ over columns j before ``first`` of d_j R_ji.
        scale: float32 (L, N, groups).
        group: int32 (L, K): which scale of a row a column has.
        residual: float32 (L, N, K): w; in these columns d on return.
        codes: int8 (L, N, K), of which these columns are written.
        loss: float32 (L, N), to which Σ ((target - q s) R_ii)² is added.
        first: The first of the columns; fewer than 128 may be left.
        bits: 8 or 4.
    """
    call("gptq_columns", factor, sums, scale, group, residual, codes, loss, first, bits)


def weight_scales(
    weight: Tensor,
    scheme: str,
    group_size: int,
    observer: str,
    grid: int = 100,
    maxshrink: float = 0.2,
    norm: float = 2.4,
    patience: int = 5,
) -> Tensor:
    """Symmetric scales of a weight, as llm-compressor computes them.

    Args:
        weight: (N, K), any float; every step is rounded to its dtype.
        scheme: "int8" (amax / 127.5), "int4" (amax / 7.5) or "fp8" (amax / 448).
        group_size: Elements of K that share a scale, or -1.
        observer: "minmax", or "mse": try amax · (1 - i / grid) for i below maxshrink · grid.
        grid: Steps that the whole range would have.
        maxshrink: How much of the range is tried, in 0..1.
        norm: Exponent of the error.
        patience: Stop after this many steps in which no group improved.
    Returns:
        float32 (N, K / G), values representable in the weight's dtype.
    """
    args = (weight, scheme, group_size, observer, grid, maxshrink, norm, patience)
    return call("weight_scales", *args)


def quantize_weight(weight: Tensor, scale: Tensor, group_size: int, scheme: str) -> Tensor:
    """Round a weight (N, K) to nearest against scales float32 (N, K / G): int8 codes, uint8 for "fp8"."""
    return call("quantize_weight", weight, scale, group_size, scheme)


def column_range(x: Tensor, low: Tensor, high: Tensor) -> None:
    """Widen ``low`` and ``high``, float32 (K,), to the column minima and maxima of x (..., K), in place."""
    call("column_range", x, low, high)


def column_abs_max(weight: Tensor) -> Tensor:
    """The largest |weight| of each column of (N, K), as float32 (K,)."""
    return call("column_abs_max", weight)


def smooth_scales(low: Tensor, high: Tensor, weight_abs_max: Tensor, strength: float) -> Tensor:
    """SmoothQuant's divisors of the activations: (high - low)^strength / (2 · weight_abs_max)^(1 - strength).

    Args:
        low: float32 (K,), from ``column_range``.
        high: float32 (K,), from ``column_range``.
        weight_abs_max: float32 (K,), the largest over all layers that read the channel.
        strength: 0..1.
    Returns:
        float32 (K,), at least 1e-5; 1 where either range is zero.
    """
    return call("smooth_scales", low, high, weight_abs_max, strength)
