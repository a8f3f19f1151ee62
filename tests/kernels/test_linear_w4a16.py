# SPDX-License-Identifier: Apache-2.0
"""Every implementation of the 4-bit linear layer against exact sums in float64."""

import dataclasses

import numpy as np
import pytest
from bounds import assert_within, rounded_once
from rows import Array, decode, encode, implementations, run, strided

from pennyweight import _C

OP = "linear_w4a16"
MARK = 4096.0  # what y holds where nothing may be written
FAST = implementations(OP)
IMPLEMENTATIONS = [*FAST, "reference"]


@dataclasses.dataclass
class Weight:
    """A packed weight (bytes) and the float64 (N, K) that it stands for."""

    packed: Array
    exact: Array
    args: dict[str, object]


def make_weight(n: int, k: int, group: int, scale_dtype: str, zero_points: bool, seed: int = 0) -> Weight:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-8, 8, (n, k), dtype=np.int8)
    codes[0], codes[-1] = -8, 7
    groups = k // group
    scale = decode(encode(rng.uniform(0.001, 0.02, (n, groups)), scale_dtype))
    zeros = rng.integers(-8, 8, (n, groups), dtype=np.int8) if zero_points else None
    block = (group + 7) // 8 * 256 + 64 * (4 if scale_dtype == "f32" else 2) + (64 if zero_points else 0)
    packed = np.zeros((n + 63) // 64 * groups * block, dtype=np.uint8)
    shape: dict[str, object] = {"n": n, "k": k, "group_size": group, "scale_dtype": scale_dtype}
    _C.run(
        "pack_int4", {"codes": codes, "scale": scale, "zeros": zeros, "weight": packed} | shape, "reference"
    )
    q = codes.astype(np.float64) - (0 if zeros is None else np.repeat(zeros, group, axis=1))
    exact = q * np.repeat(scale.astype(np.float64), group, axis=1)
    return Weight(packed, exact, shape | {"zero_points": int(zero_points)})


def linear(
    implementation: str, x: Array, dtype: str, w: Weight, bias: Array | None = None, y_pad: int = 0
) -> Array:
    """y as float32; x (M, at least K) in ``dtype``, its row stride taken as it is."""
    m, n = x.shape[0], w.exact.shape[0]
    y = encode(np.full((m, n + y_pad), MARK), dtype)
    sizes = {"m": m, "x_stride": x.shape[1], "y_stride": n + y_pad, "x_dtype": dtype}
    run(OP, implementation, {"x": x, "weight": w.packed, "bias": bias, "y": y} | sizes | w.args)
    assert (decode(y[:, n:]) == MARK).all()
    return decode(y[:, :n])


@dataclasses.dataclass
class Case:
    """A weight (n, k) and activations of m rows; bias, and NaN between the rows of x, where ``ragged``."""

    m: int
    n: int
    k: int
    group: int
    scale_dtype: str = "bf16"
    zero_points: bool = False
    dtype: str = "bf16"
    ragged: bool = False

    def check(self, implementation: str) -> None:
        """Bound: K + groups + 3 roundings to float32 of sums up to sum |x||w|, and one to dtype."""
        rng = np.random.default_rng(self.m * 1000 + self.k)
        w = make_weight(self.n, self.k, self.group, self.scale_dtype, self.zero_points)
        values = encode(rng.standard_normal((self.m, self.k)), self.dtype)
        x, _ = strided(values, 3 if self.ragged else 0)
        bias = encode(rng.standard_normal(self.n), self.dtype) if self.ragged else None
        added = np.zeros(self.n) if bias is None else decode(bias).astype(np.float64)
        exact = decode(values).astype(np.float64)
        want, magnitude = exact @ w.exact.T + added, np.abs(exact) @ np.abs(w.exact).T + np.abs(added)
        in_sum = (
            (self.k + self.k // self.group + 3) * 2.0**-24 * magnitude * 1.01
        )  # 1.01: the product of roundings
        got = linear(implementation, x, self.dtype, w, bias, y_pad=5 if self.ragged else 0)
        assert_within(got, want, rounded_once(want, in_sum, self.dtype))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("m", [1, 2, 3, 17, 118, 140])
def test_linear_w4a16_matches_exact_sums(implementation: str, dtype: str, m: int) -> None:
    Case(m, 130, 384, 128, dtype=dtype).check(implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("m", [3, 140])
@pytest.mark.parametrize("zero_points", [False, True], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("scale_dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("group", [32, 64, 128, -1])
def test_linear_w4a16_takes_every_weight(
    implementation: str, group: int, scale_dtype: str, zero_points: bool, m: int
) -> None:
    Case(m, 67, 640, 640 if group < 0 else group, scale_dtype, zero_points).check(implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("m", [1, 5, 140])
@pytest.mark.parametrize("k", [1, 7, 131, 1027])
def test_linear_w4a16_takes_ragged_channels(implementation: str, k: int, m: int, dtype: str) -> None:
    Case(m, 65, k, k, "f32", k % 2 == 1, dtype, ragged=True).check(implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("n", [1, 15, 16, 63, 64, 65, 200])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_linear_w4a16_takes_bias_strides_and_any_n(implementation: str, n: int, dtype: str) -> None:
    Case(9, n, 256, 64, "bf16", True, dtype, ragged=True).check(implementation)


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_linear_w4a16_row_does_not_depend_on_the_others(implementation: str, dtype: str) -> None:
    w = make_weight(100, 512, 128, "bf16", True)
    x = encode(np.random.default_rng(1).standard_normal((1600, 512)), dtype)
    whole = linear(implementation, x, dtype, w)
    for m in (1, 2, 7, 16, 33, 49, 128):
        np.testing.assert_array_equal(linear(implementation, x[:m], dtype, w), whole[:m])
    np.testing.assert_array_equal(linear(implementation, x[1590:], dtype, w), whole[1590:])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("m", [4, 140])
def test_linear_w4a16_nan_and_inf_stay_in_their_row(implementation: str, m: int) -> None:
    w = make_weight(64, 256, 128, "bf16", False)
    x = np.ones((m, 256), dtype=np.float32)
    x[1, 17], x[2, 200] = np.nan, np.inf
    y = linear(implementation, encode(x, "bf16"), "bf16", w)
    assert np.isnan(y[1]).all()
    assert not np.isfinite(y[2]).any()
    assert np.isfinite(np.delete(y, [1, 2], axis=0)).all()
