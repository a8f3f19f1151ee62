# SPDX-License-Identifier: Apache-2.0
"""The numerics in plain torch: a second statement of what the kernels compute, for readers and tests.

    weights       scale = amax / 127.5 (int8), amax / 7.5 (int4), amax / 448 (fp8), each step in the weight's
    dtype;
                  a zero scale becomes that dtype's eps. codes = clamp(round-half-even(w / scale)), quotient
                  in float32
    activations   per token: scale = amax / 127 (int8), amax / 448 (fp8) in float32, codes -127..127;
                  an all-zero row gives zeros
    value         x = code * scale

FP8 is E4M3 without infinities: -448..448, saturating; its codes travel as bytes (uint8).
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Half of the code range that a weight's amax is divided by.
WEIGHT_LIMIT = {"int8": 127.5, "int4": 7.5, "fp8": 448.0}
#: Smallest and largest code.
CODE_RANGE = {"int8": (-128, 127), "int4": (-8, 7)}
#: What a token's amax is divided by.
TOKEN_LIMIT = {"int8": 127.0, "fp8": 448.0}


def weight_scales(weight: Tensor, kind: str, group_size: int = -1) -> Tensor:
    """Return min-max scales (N, K / group_size), float32 values of the weight's dtype.

    Args:
        weight: (N, K) float; `group_size` divides K, -1: one group per row.
        kind: "int8", "int4" or "fp8".
    """
    groups = _grouped(weight, weight.shape[1] if group_size == -1 else group_size)
    return _scale_of(groups.abs().amax(-1), kind)


def mse_scales(
    weight: Tensor,
    kind: str,
    group_size: int = -1,
    grid: int = 100,
    maxshrink: float = 0.2,
    norm: float = 2.4,
) -> Tensor:
    """Return the scales (N, K / group_size) of the least error sum |dequantized - w|^norm over shrunk ranges.

    Tries p = 1 - i / grid for i in [0, maxshrink * grid). The kernel also stops after a number of steps in
    which no group improved; here every step is tried.
    """
    size = weight.shape[1] if group_size == -1 else group_size
    groups = _grouped(weight, size)
    amax, values = groups.abs().amax(-1), groups.double()
    best, scale = torch.full(amax.shape, torch.inf, dtype=torch.float64), _scale_of(amax, kind)
    for step in range(int(maxshrink * grid)):
        candidate = _scale_of(((1 - step / grid) * amax.float()).to(weight.dtype), kind)
        codes = quantize_weight(weight, candidate, kind, size)
        error = (_grouped(dequantize(codes, candidate, size), size) - values).abs().pow(norm).sum(-1)
        scale, best = torch.where(error < best, candidate, scale), torch.minimum(error, best)
    return scale


def quantize_weight(weight: Tensor, scale: Tensor, kind: str, group_size: int = -1) -> Tensor:
    """Round a weight (N, K) to its codes: int8 (N, K), uint8 for fp8."""
    return _codes(weight.float() / _spread(scale, weight.shape[1], group_size), kind)


def dequantize(codes: Tensor, scale: Tensor, group_size: int = -1) -> Tensor:
    """Return the float32 weight (N, K) that codes (int8; uint8: fp8) and scales (N, K / group_size) stand
    for.
    """
    values = codes.view(torch.float8_e4m3fn) if codes.dtype == torch.uint8 else codes
    return values.float() * _spread(scale, codes.shape[1], group_size)


def quantize_per_token(x: Tensor, kind: str, smooth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Quantize activations (..., K) token by token.

    Args:
        x: Float activations.
        kind: "int8" or "fp8".
        smooth: (K,) float32 that x is divided by first.
    Returns:
        codes (..., K) int8, or uint8 for fp8, and scale (..., 1) float32. A row that holds NaN or Inf has
        a NaN scale, so that it stays visible in whatever is computed from it.
    """
    values = x.float() if smooth is None else x.float() / smooth
    amax = values.abs().amax(-1, keepdim=True)
    scale = torch.where(amax.isfinite(), amax / TOKEN_LIMIT[kind], torch.nan)
    quotient = torch.where(scale > 0, values / scale, 0.0)
    return _codes(quotient.clamp(-TOKEN_LIMIT[kind], TOKEN_LIMIT[kind]), kind), scale


def _grouped(weight: Tensor, size: int) -> Tensor:
    return weight.reshape(weight.shape[0], -1, size)


def _scale_of(amax: Tensor, kind: str) -> Tensor:
    scale = (amax.float() / WEIGHT_LIMIT[kind]).to(amax.dtype)
    return torch.where(scale == 0, torch.finfo(amax.dtype).eps, scale.float())


def _spread(scale: Tensor, columns: int, group_size: int) -> Tensor:
    return scale.float().repeat_interleave(columns if group_size == -1 else group_size, dim=1)


def _codes(quotient: Tensor, kind: str) -> Tensor:
    if kind == "fp8":
        return quotient.clamp(-448.0, 448.0).to(torch.float8_e4m3fn).view(torch.uint8)
    low, high = CODE_RANGE[kind]
    return quotient.round().clamp(low, high).to(torch.int8)
