# SPDX-License-Identifier: Apache-2.0
"""W8A8 INT8: every implementation gives the plain loops' bits, accumulators and epilogue alike."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import DTYPES, Array, assert_same_bits, encode, implementations, run, strided

# Rows around a tile's height, outputs around a panel, K around 4, 16, a block of K.
SIZES = [(1, 1, 1), (1, 64, 64), (1, 130, 333), (2, 65, 5), (3, 63, 16), (4, 128, 30), (5, 1, 260)]
SIZES += [(6, 64, 7), (7, 100, 100), (12, 70, 515), (13, 66, 1030), (17, 64, 256), (30, 65, 300)]
SIZES += [(43, 64, 514), (118, 96, 40)]


def pack(codes: Array) -> Array:
    """(n, k) int8 -> INT8_PANEL, by the plain loops; padding filled as the format asks."""
    n, k = codes.shape
    weight = np.empty(-(-n // 64) * 64 * (-(-k // 4) * 4), np.uint8)
    run("pack_int8", "reference", {"codes": codes, "weight": weight, "n": n, "k": k})
    return weight


def compare(op: str, implementation: str, args: dict[str, Any], y: Array) -> None:
    """Run both sides into buffers full of a marker (whatever is not an output must keep it)."""
    sides = []
    for name in ("reference", implementation):
        side = np.full_like(y, 77)
        run(op, name, args | {"y": side})
        sides.append(side)
    assert_same_bits(sides[1], sides[0], f"{op} { ({k: args[k] for k in 'mnk'}) }")


def y_like(m: int, stride: int, dtype: str) -> Array:
    """One row more than is written."""
    kinds: dict[str, Any] = {"bf16": np.uint16, "f16": np.float16, "f32": np.float32, "i32": np.int32}
    return np.empty((m + 1, stride), kinds[dtype])


@pytest.mark.parametrize("implementation", implementations("gemm_w8a8_int8"))
def test_gemm_w8a8_int8_accumulators_match_numpy(implementation: str) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in SIZES:
        x = rng.integers(-128, 128, (m, k), dtype=np.int8)
        w = rng.integers(-128, 128, (n, k), dtype=np.int8)
        x[0], w[0] = -128, -128
        x[m // 2], w[n // 2] = 127, 127
        y = y_like(m, n, "i32")[:m]
        args = {"codes": x, "weight": pack(w), "y": y, "m": m, "n": n, "k": k, "codes_stride": k}
        run("gemm_w8a8_int8", implementation, args | {"y_stride": n, "y_dtype": "i32"})
        assert_same_bits(y, x.astype(np.int32) @ w.astype(np.int32).T, f"accumulators {m, n, k}")


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", [*DTYPES, "i32"])
@pytest.mark.parametrize("implementation", implementations("gemm_w8a8_int8"))
def test_gemm_w8a8_int8_matches_reference(implementation: str, dtype: str, bias: bool) -> None:
    if dtype == "i32" and bias:
        return
    rng = np.random.default_rng(2)
    for m, n, k in SIZES:
        codes = rng.integers(-128, 128, (m, k + 9), dtype=np.int8)
        weight = pack(rng.integers(-128, 128, (n, k), dtype=np.int8))
        args = {"codes": codes, "codes_stride": k + 9, "weight": weight, "m": m, "n": n, "k": k}
        args |= {"y_stride": n + 3, "y_dtype": dtype}
        if dtype != "i32":
            args["row_scale"] = rng.uniform(0.001, 0.1, m).astype(np.float32)
            args["row_scale"][m // 2] = np.nan if m > 2 else 0.0
            args["col_scale"] = rng.uniform(0.001, 0.1, n).astype(np.float32)
            args["bias"] = encode(rng.standard_normal(n) * 10, dtype) if bias else None
        compare("gemm_w8a8_int8", implementation, args, y_like(m, n + 3, dtype))


@pytest.mark.parametrize("smooth", [False, True], ids=["plain", "smooth"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations("linear_w8a8_int8"))
def test_linear_w8a8_int8_matches_reference(implementation: str, dtype: str, smooth: bool) -> None:
    rng = np.random.default_rng(3)
    for m, n, k in SIZES:
        values = rng.standard_normal((m, k))
        values[m // 2] = 0.0
        x, stride = strided(encode(values, dtype), 5)
        args = {"x": x, "x_stride": stride, "weight": pack(rng.integers(-128, 128, (n, k), dtype=np.int8))}
        args |= {"col_scale": rng.uniform(0.001, 0.1, n).astype(np.float32), "m": m, "n": n, "k": k}
        args |= {"smooth": rng.uniform(0.1, 9.0, k).astype(np.float32) if smooth else None}
        args |= {"bias": encode(rng.standard_normal(n), dtype) if n % 2 else None}
        args |= {"x_dtype": dtype, "y_stride": n + 1}
        compare("linear_w8a8_int8", implementation, args, y_like(m, n + 1, dtype))


@pytest.mark.parametrize("implementation", implementations("linear_w8a8_int8"))
def test_linear_w8a8_int8_carries_nan_rows_to_their_outputs_alone(implementation: str) -> None:
    x = np.ones((9, 70), np.float32)
    x[4, 69], x[7, 0] = np.nan, np.inf
    args = {"x": x, "x_stride": 70, "weight": pack(np.ones((80, 70), np.int8)), "m": 9, "n": 80, "k": 70}
    args |= {"col_scale": np.ones(80, np.float32), "x_dtype": "f32"}
    args |= {"y": np.empty((9, 80), np.float32), "y_stride": 80}
    run("linear_w8a8_int8", implementation, args)
    assert np.isnan(args["y"]).all(axis=1).tolist() == [row in (4, 7) for row in range(9)]
    assert np.isfinite(args["y"][[0, 1, 2, 3, 5, 6, 8]]).all()


@pytest.mark.parametrize("implementation", implementations("linear_w8a8_int8"))
def test_linear_w8a8_int8_matches_reference_across_row_blocks(implementation: str) -> None:
    m, n, k = 1030, 66, 36
    rng = np.random.default_rng(5)
    args = {"x": encode(rng.standard_normal((m, k)), "bf16"), "x_stride": k, "m": m, "n": n, "k": k}
    args |= {"weight": pack(rng.integers(-128, 128, (n, k), dtype=np.int8)), "x_dtype": "bf16"}
    args |= {"y_stride": n, "col_scale": rng.uniform(0.001, 0.1, n).astype(np.float32)}
    compare("linear_w8a8_int8", implementation, args, y_like(m, n, "bf16"))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 200), st.integers(1, 200), st.integers(0, 5), st.sampled_from(DTYPES)
)
def test_linear_w8a8_int8_matches_reference_on_any_shape(
    m: int, n: int, k: int, gap: int, dtype: str
) -> None:
    rng = np.random.default_rng(m * n + k)
    x, stride = strided(encode(rng.standard_normal((m, k)), dtype), gap)
    args = {"x": x, "x_stride": stride, "weight": pack(rng.integers(-128, 128, (n, k), dtype=np.int8))}
    args |= {"col_scale": rng.uniform(0.001, 0.1, n).astype(np.float32), "m": m, "n": n, "k": k}
    args |= {"x_dtype": dtype, "y_stride": n + gap, "bias": encode(rng.standard_normal(n), dtype)}
    for implementation in implementations("linear_w8a8_int8"):
        compare("linear_w8a8_int8", implementation, args, y_like(m, n + gap, dtype))
