# SPDX-License-Identifier: Apache-2.0
"""Every implementation of the bfloat16 linear layer against exact sums in float64."""

import numpy as np
import pytest
from bounds import assert_within, rounded_once
from rows import Array, decode, encode, implementations, run, strided

OP = "linear_bf16"
MARK = 4096.0  # what y holds where nothing may be written
FAST = implementations(OP)


def linear(name: str, x: Array, w: Array, k: int, bias: Array | None = None, y_pad: int = 0) -> Array:
    """y as float32; x and w hold rows of at least k elements, their strides taken as they are."""
    m, n = x.shape[0], w.shape[0]
    y = encode(np.full((m, n + y_pad), MARK), "bf16")
    sizes = {"m": m, "n": n, "k": k, "x_stride": x.shape[1], "w_stride": w.shape[1], "y_stride": n + y_pad}
    run(OP, name, {"x": x, "weight": w, "bias": bias, "y": y} | sizes)
    assert (decode(y[:, n:]) == MARK).all()
    return decode(y[:, :n])


@pytest.mark.parametrize("ragged", [False, True], ids=["dense", "bias-and-strides"])
@pytest.mark.parametrize("name", [*FAST, "reference"])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 66])
def test_linear_bf16_matches_exact_sums(m: int, name: str, ragged: bool) -> None:
    """Bound: K + 1 roundings to float32 of sums up to sum |x||w| + |bias|, and one to bfloat16."""
    rng = np.random.default_rng(m)
    for n, k in ((1, 1), (3, 31), (70, 32), (4, 33), (67, 257), (130, 128)):
        values, weights = (encode(rng.standard_normal((rows, k)), "bf16") for rows in (m, n))
        x, w = (strided(v, extra if ragged else 0)[0] for v, extra in ((values, 3), (weights, 7)))
        bias = encode(rng.standard_normal(n), "bf16") if ragged else None
        added = np.zeros(n) if bias is None else decode(bias).astype(np.float64)
        left, right = decode(values).astype(np.float64), decode(weights).astype(np.float64)
        want, magnitude = left @ right.T + added, np.abs(left) @ np.abs(right).T + np.abs(added)
        in_sum = (k + 1) * 2.0**-24 * magnitude * 1.01  # 1.01: the product of roundings
        got = linear(name, x, w, k, bias, y_pad=5 if ragged else 0)
        assert_within(got, want, rounded_once(want, in_sum, "bf16"))


@pytest.mark.parametrize("name", FAST)
def test_linear_bf16_row_does_not_depend_on_the_others(name: str) -> None:
    rng = np.random.default_rng(0)
    x, w = (encode(rng.standard_normal((rows, 200)), "bf16") for rows in (139, 71))
    whole = linear(name, x, w, 200)
    for m in (1, 2, 3, 4, 7, 64, 66):
        np.testing.assert_array_equal(linear(name, x[:m], w, 200), whole[:m])
    np.testing.assert_array_equal(linear(name, x[138:], w, 200), whole[138:])
    np.testing.assert_array_equal(linear(name, x, w[:3], 200), whole[:, :3])


@pytest.mark.parametrize("name", [*FAST, "reference"])
def test_linear_bf16_subnormals_count(name: str) -> None:
    x, w = np.full((2, 40), 2.0**-130, np.float32), np.full((5, 40), 2.0**20, np.float32)
    y = linear(name, encode(x, "bf16"), encode(w, "bf16"), 40)
    assert (y == 40 * 2.0**-110).all()


@pytest.mark.parametrize("name", [*FAST, "reference"])
def test_linear_bf16_nan_and_inf_stay_in_their_row(name: str) -> None:
    x, w = np.ones((5, 70), np.float32), np.ones((6, 70), np.float32)
    x[1, 17], x[2, 69] = np.nan, np.inf
    y = linear(name, encode(x, "bf16"), encode(w, "bf16"), 70)
    assert np.isnan(y[1]).all()
    assert (y[2] == np.inf).all()
    assert (y[[0, 3, 4]] == 70).all()
