# SPDX-License-Identifier: Apache-2.0
"""column_range, column_abs_max and smooth_scales: exact against torch and NumPy."""

import numpy as np
import pytest
import torch
from calibrate_helpers import TORCH, assert_equal, implementations, raw, run

SHAPES = [(1, 1), (3, 7), (40, 33), (17, 600), (5, 1024)]


def make_rows(t: int, k: int, dtype: str) -> torch.Tensor:
    x = torch.randn(t, k, generator=torch.Generator().manual_seed(t * k)).to(TORCH[dtype])
    if k > 6:
        x[0, 1], x[-1, 3], x[t // 2, 5] = float("nan"), float("inf"), -float("inf")
    return x


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("t", "k"), SHAPES)
@pytest.mark.parametrize("implementation", implementations("column_range"))
def test_column_range_equals_torch(implementation: str, t: int, k: int, dtype: str) -> None:
    x = make_rows(t, k + 9, dtype)[:, :k]
    low, high = np.full(k, 0.25, np.float32), np.full(k, -0.25, np.float32)
    low[-1] = np.nan
    start_low, start_high = torch.from_numpy(low.copy()), torch.from_numpy(high.copy())
    storage = raw(make_rows(t, k + 9, dtype))
    sizes = dict(t=t, k=k, x_stride=k + 9, x_dtype=dtype)
    run("column_range", implementation, x=storage, low=low, high=high, **sizes)
    np.testing.assert_array_equal(low, torch.minimum(start_low, x.float().amin(0)).numpy())
    np.testing.assert_array_equal(high, torch.maximum(start_high, x.float().amax(0)).numpy())


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("implementation", implementations("column_abs_max"))
def test_column_abs_max_equals_torch(implementation: str, n: int, k: int, dtype: str) -> None:
    weight, out = make_rows(n, k, dtype), np.full(k, 77.0, np.float32)
    run("column_abs_max", implementation, weight=raw(weight), out=out, n=n, k=k, w_dtype=dtype)
    np.testing.assert_array_equal(out, weight.float().abs().amax(0).numpy())


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.8, 1.0])
def test_smooth_scales_equals_formula(strength: float) -> None:
    rng = np.random.default_rng(5)
    low, high, weight = -rng.uniform(0, 9, 50), rng.uniform(0, 9, 50), rng.uniform(0, 0.5, 50)
    low[3] = high[3] = 0.0  # a dead channel
    weight[4] = 0.0
    high[5], weight[5] = 1e-30 + low[5], 1e3  # at the floor
    low, high, weight = (v.astype(np.float32) for v in (low, high, weight))
    scale = np.empty(50, np.float32)
    args = dict(low=low, high=high, weight_abs_max=weight, scale=scale, k=50, strength=strength)
    run("smooth_scales", "reference", **args)
    span, size = high.astype(np.float64) - low, 2.0 * weight.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.maximum(span**strength / size ** (1 - strength), 1e-5)
    expected = np.where((span > 0) & (size > 0), expected, 1.0).astype(np.float32)
    np.testing.assert_allclose(scale, expected, rtol=2.0**-23)
    assert_equal(scale[[3, 4]], np.ones(2, np.float32))
