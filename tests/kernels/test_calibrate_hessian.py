# SPDX-License-Identifier: Apache-2.0
"""hessian_accumulate against a float64 product, every implementation."""

import numpy as np
import pytest
import torch
from calibrate_helpers import EPS, TORCH, assert_equal, assert_within, implementations, raw, run

OP = "hessian_accumulate"
SHAPES = [(1, 1), (2, 193), (3, 47), (129, 48), (300, 100), (513, 200), (40, 401)]


def accumulate(x: torch.Tensor, dtype: str, h: np.ndarray, implementation: str) -> None:
    t, k = x.shape
    run(OP, implementation, x=raw(x), h=h, t=t, k=k, x_stride=k, x_dtype=dtype)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("t", "k"), SHAPES, ids=lambda v: str(v))
@pytest.mark.parametrize("implementation", implementations(OP))
def test_hessian_matches_float64(implementation: str, t: int, k: int, dtype: str) -> None:
    x = torch.randn(t, k, generator=torch.Generator().manual_seed(t * k)).to(TORCH[dtype])
    start = np.random.default_rng(k).standard_normal((k, k)).astype(np.float32)
    h = start.copy()
    accumulate(x, dtype, h, implementation)
    exact = x.double().numpy()
    lower = np.tril_indices(k)
    expected = (start + exact.T @ exact)[lower]
    # At most t + 2 roundings on a partial sum that never exceeds sum |x_i x_j| + |h|.
    size = (np.abs(exact).T @ np.abs(exact) + np.abs(start))[lower]
    assert_within(h[lower], expected, (t + 2) * EPS * size)
    assert_equal(np.triu(h, 1), np.triu(start, 1), "upper triangle")


@pytest.mark.parametrize("implementation", implementations(OP))
def test_hessian_takes_strided_rows(implementation: str) -> None:
    x = torch.randn(70, 130, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected, h = np.zeros((100, 100), np.float32), np.zeros((100, 100), np.float32)
    accumulate(x[:, :100], "bf16", expected, implementation)
    run(OP, implementation, x=raw(x), h=h, t=70, k=100, x_stride=130, x_dtype="bf16")
    assert_equal(h, expected)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("implementation", implementations(OP))
def test_hessian_carries_nan_and_inf(implementation: str, dtype: str) -> None:
    x = torch.ones(5, 100, dtype=TORCH[dtype])
    x[2, 7], x[3, 60] = float("nan"), float("inf")
    h = np.zeros((100, 100), np.float32)
    accumulate(x, dtype, h, implementation)
    expected = (x.double().T @ x.double()).float().numpy()
    lower = np.tril_indices(100)
    np.testing.assert_array_equal(h[lower], expected[lower])


@pytest.mark.parametrize("implementation", implementations(OP))
def test_hessian_passes_the_token_block(implementation: str) -> None:
    # Ones count exactly: more tokens than any block holds at a small k.
    x = torch.ones(9001, 3, dtype=torch.bfloat16)
    h = np.zeros((3, 3), np.float32)
    accumulate(x, "bf16", h, implementation)
    assert_equal(h, np.tril(np.full((3, 3), 9001, np.float32)))
