# SPDX-License-Identifier: Apache-2.0
"""The numerics stated in plain torch against the kernels: the same bits."""

from __future__ import annotations

import pytest
import torch

from pennyweight import ops, reference

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
KINDS = ["int8", "int4", "fp8"]


def weight(dtype: torch.dtype, n: int = 24, k: int = 128) -> torch.Tensor:
    """A weight with a row of zeros, an outlier, and denormals."""
    w = torch.randn(n, k, generator=torch.Generator().manual_seed(3)) * 0.05
    w[1] = 0
    w[2, 5] = 7.0
    w[3] *= 1e-5
    return w.to(dtype)


@pytest.mark.parametrize("group_size", [-1, 32])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_scales_and_codes_match_the_kernel(dtype: torch.dtype, kind: str, group_size: int) -> None:
    w = weight(dtype)
    scale = ops.weight_scales(w, kind, group_size, "minmax")
    assert torch.equal(scale, reference.weight_scales(w, kind, group_size))
    assert torch.equal(scale, scale.to(dtype).float()), "scales are values of the weight's dtype"
    assert bool((scale > 0).all())
    codes = ops.quantize_weight(w, scale, group_size, kind)
    assert torch.equal(codes, reference.quantize_weight(w, scale, kind, group_size))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mse_scales_err_as_little_as_the_reference(dtype: torch.dtype, kind: str) -> None:
    # Where two candidates err alike the choice between them rests on the last bit of a sum, so errors are
    # compared: 128 terms, each with a relative error of a few float32 roundoffs (2^-24), leave 2^-17 to
    # spare.
    w = weight(dtype)

    def error(scale: torch.Tensor) -> torch.Tensor:
        codes = reference.quantize_weight(w, scale, kind, 32)
        difference = reference.dequantize(codes, scale, 32).double() - w.double()
        return difference.unflatten(1, (-1, 32)).abs().pow(2.4).sum(-1)

    found, best = error(ops.weight_scales(w, kind, 32, "mse")), error(reference.mse_scales(w, kind, 32))
    assert bool((found <= best * (1 + 2**-17)).all())
    assert bool((found <= error(reference.weight_scales(w, kind, 32))).all())


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quantize_per_token_matches_the_kernel(dtype: torch.dtype, kind: str, smooth: bool) -> None:
    x = torch.randn(9, 70, generator=torch.Generator().manual_seed(4)).to(dtype)
    x[1], x[2, 3], x[3, 4], x[4, 5] = 0, 300, torch.nan, -torch.inf
    factors = torch.rand(70, generator=torch.Generator().manual_seed(5)) + 0.5 if smooth else None
    op = ops.quantize_per_token_int8 if kind == "int8" else ops.quantize_per_token_fp8
    codes, scale = op(x, factors)
    want_codes, want_scale = reference.quantize_per_token(x, kind, factors)
    assert torch.equal(scale.nan_to_num(nan=-1.0), want_scale.nan_to_num(nan=-1.0))
    assert torch.equal(codes, want_codes)
    assert bool(scale[3].isnan()) and bool(scale[4].isnan()) and float(scale[1]) == 0


def test_dequantize_inverts_within_half_a_step() -> None:
    w = weight(torch.float32)
    scale = reference.weight_scales(w, "int8")
    back = reference.dequantize(reference.quantize_weight(w, scale, "int8"), scale)
    # Codes reach 127, the scale is amax / 127.5: the largest weight clips by half a step, as rounding errs
    # at most. 2^-23: roundoff of the quotient and of the product, each up to 128 steps of 2^-24 relative.
    assert bool(((back - w).abs() <= scale * (0.5 + 128 * 2**-23)).all())
