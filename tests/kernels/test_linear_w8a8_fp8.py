# SPDX-License-Identifier: Apache-2.0
"""Every implementation of the FP8 linear layer and its GEMM against exact sums in float64."""

import dataclasses

import numpy as np
import pytest
from bounds import assert_within, rounded_once
from rows import DTYPES, Array, decode, encode, implementations, run

from pennyweight import _C

GEMM, LINEAR = "gemm_w8a8_fp8", "linear_w8a8_fp8"
MARK = 4096.0  # what y holds where nothing may be written
FAST = implementations(GEMM)
IMPLEMENTATIONS = [*FAST, "reference"]


def e4m3_values() -> Array:
    """The value of each of the 256 codes, as float64."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    magnitude = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    magnitude[(code & 127) == 127] = np.nan
    return np.where(code & 128, -magnitude, magnitude)


VALUES = e4m3_values()


def random_codes(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Every finite code, both zeros and all subnormals included."""
    codes = rng.integers(0, 254, shape, dtype=np.uint8)
    return np.where(codes >= 127, codes + 1, codes).astype(np.uint8)


def pack(codes: Array) -> Array:
    n, k = codes.shape
    packed = np.zeros((n + 63) // 64 * 64 * ((k + 3) // 4 * 4), dtype=np.uint8)
    _C.run("pack_fp8", {"codes": codes, "weight": packed, "n": n, "k": k}, "reference")
    return packed


@dataclasses.dataclass
class Weight:
    """Codes (N, K), packed, with a scale and perhaps a bias per output."""

    codes: Array
    col_scale: Array
    bias: Array | None = None

    @property
    def args(self) -> dict[str, object]:
        n, k = self.codes.shape
        return {
            "weight": pack(self.codes),
            "col_scale": self.col_scale,
            "bias": self.bias,
            "n": n,
            "k": k,
            "fast_accum": 0,
        }


def gemm(implementation: str, codes: Array, row_scale: Array, w: Weight, dtype: str, y_pad: int = 0) -> Array:
    """y as float32; codes (M, at least K), their row stride taken as it is."""
    m, n = codes.shape[0], w.col_scale.size
    y = encode(np.full((m, n + y_pad), MARK), dtype)
    sizes = {"m": m, "codes_stride": codes.shape[1], "y_stride": n + y_pad, "y_dtype": dtype}
    run(GEMM, implementation, {"codes": codes, "row_scale": row_scale, "y": y} | sizes | w.args)
    assert (decode(y[:, n:]) == MARK).all()
    return decode(y[:, :n])


def linear(implementation: str, x: Array, w: Weight, dtype: str, smooth: Array | None = None) -> Array:
    """y as float32; x (M, at least K) in ``dtype``."""
    m, n = x.shape[0], w.col_scale.size
    y = encode(np.full((m, n), MARK), dtype)
    sizes = {"m": m, "x_stride": x.shape[1], "y_stride": n, "x_dtype": dtype}
    run(LINEAR, implementation, {"x": x, "smooth": smooth, "y": y} | sizes | w.args)
    return decode(y)


def expected(codes: Array, row_scale: Array, w: Weight, dtype: str) -> tuple[Array, Array]:
    """The exact result and its bound: K + 3 roundings to float32, one to dtype."""
    scale = row_scale.astype(np.float64)[:, None] * w.col_scale.astype(np.float64)
    x, values = VALUES[codes], VALUES[w.codes]
    added = np.zeros(w.col_scale.size) if w.bias is None else decode(w.bias).astype(np.float64)
    want, magnitude = x @ values.T * scale + added, np.abs(x) @ np.abs(values).T * scale + np.abs(added)
    return want, rounded_once(
        want, (x.shape[1] + 3) * 2.0**-24 * magnitude * 1.01, dtype
    )  # 1.01: their product


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 3, 17, 118, 140])
@pytest.mark.parametrize("n,k", [(65, 129), (130, 384), (64, 1027), (7, 1), (200, 6)])
def test_gemm_w8a8_fp8_matches_exact_sums(implementation: str, n: int, k: int, m: int, dtype: str) -> None:
    rng = np.random.default_rng(n * k + m)
    codes = random_codes(rng, (m, k + 3))
    codes[:, k:] = 0x7F  # NaN between the rows
    bias = encode(rng.standard_normal(n), dtype) if m % 2 else None
    w = Weight(random_codes(rng, (n, k)), rng.uniform(1e-4, 1e-3, n).astype(np.float32), bias)
    row_scale = rng.uniform(1e-4, 1e-3, m).astype(np.float32)
    got = gemm(implementation, codes, row_scale, w, dtype, y_pad=5)
    assert_within(got, *expected(codes[:, :k], row_scale, w, dtype))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("smooth", [False, True], ids=["plain", "smooth"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 17, 140])
@pytest.mark.parametrize("k", [70, 512])
def test_linear_w8a8_fp8_is_quantize_then_gemm(
    implementation: str, k: int, m: int, dtype: str, smooth: bool
) -> None:
    rng = np.random.default_rng(k + m)
    x = encode(rng.standard_normal((m, k + 2)) ** 3, dtype)
    x[0] = 0
    w = Weight(random_codes(rng, (66, k)), rng.uniform(1e-3, 1e-2, 66).astype(np.float32))
    w.bias = encode(rng.standard_normal(66), dtype)
    divisor = rng.uniform(0.5, 2, k).astype(np.float32) if smooth else None
    codes, row_scale = np.zeros((m, k), dtype=np.uint8), np.zeros(m, dtype=np.float32)
    sizes = {"m": m, "k": k, "x_stride": k + 2, "x_dtype": dtype}
    _C.run(
        "quantize_per_token_fp8",
        {"x": x, "smooth": divisor, "codes": codes, "scale": row_scale} | sizes,
        "reference",
    )
    got = linear(implementation, x, w, dtype, divisor)
    np.testing.assert_array_equal(got, gemm(implementation, codes, row_scale, w, dtype))
    assert_within(got, *expected(codes, row_scale, w, dtype))


@pytest.mark.parametrize("implementation", FAST)
def test_gemm_w8a8_fp8_row_does_not_depend_on_the_others(implementation: str) -> None:
    rng = np.random.default_rng(3)
    codes, row_scale = random_codes(rng, (1600, 300)), np.ones(1600, dtype=np.float32)
    w = Weight(random_codes(rng, (70, 300)), np.ones(70, dtype=np.float32))
    whole = gemm(implementation, codes, row_scale, w, "f32")
    for m in (1, 2, 7, 16, 33, 49, 128):
        np.testing.assert_array_equal(gemm(implementation, codes[:m], row_scale, w, "f32"), whole[:m])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("m", [1, 4, 140])
def test_gemm_w8a8_fp8_decodes_every_code(implementation: str, m: int) -> None:
    """Each code as weight and as activation, times one: NaN codes give NaN."""
    one, scale = np.full((m, 8), 0x38, dtype=np.uint8), np.ones(256, dtype=np.float32)
    every = np.zeros((256, 8), dtype=np.uint8)
    every[np.arange(256), np.arange(256) % 8] = np.arange(256)
    values = VALUES.astype(np.float32)
    as_weight = gemm(implementation, one, scale[:m], Weight(every, scale), "f32")
    np.testing.assert_array_equal(as_weight, np.tile(values, (m, 1)))
    as_activation = gemm(implementation, every, scale, Weight(one[:1], scale[:1]), "f32")
    np.testing.assert_array_equal(as_activation[:, 0], values)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("m", [3, 140])
def test_linear_w8a8_fp8_nan_and_inf_stay_in_their_row(implementation: str, m: int) -> None:
    x = np.ones((m, 100), dtype=np.float32)
    x[1, 17], x[2, 99] = np.nan, -np.inf
    w = Weight(np.full((64, 100), 0x38, dtype=np.uint8), np.ones(64, dtype=np.float32))
    y = linear(implementation, x, w, "f32")
    assert np.isnan(y[1:3]).all()
    assert np.isfinite(np.delete(y, [1, 2], axis=0)).all()
