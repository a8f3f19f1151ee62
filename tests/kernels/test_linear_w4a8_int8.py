# SPDX-License-Identifier: Apache-2.0
"""W4A8: every implementation gives the plain loops' bits, group by group."""

from typing import Any

import numpy as np
import pytest
from rows import DTYPES, Array, assert_same_bits, decode, encode, implementations, run, strided

# (m, n, groups); a group of 0 stands for one scale per channel, whose K is then the third number times 20.
SIZES = [(1, 1, 1), (1, 130, 3), (2, 65, 2), (3, 64, 5), (4, 63, 1), (5, 70, 4), (6, 64, 2), (7, 1, 3)]
SIZES += [(17, 66, 5), (43, 64, 3), (118, 65, 2)]


def bytes_of(n: int, k: int, group: int, scale_dtype: str, zeros: bool) -> int:
    """Size of an INT4_PANEL (docs/layouts.md)."""
    block = -(-group // 8) * 256 + 64 * (4 if scale_dtype == "f32" else 2) + 64 * zeros
    return -(-n // 64) * (k // group) * block


def pack(rng: np.random.Generator, n: int, k: int, group: int, scale_dtype: str, zeros: bool) -> Array:
    """A random INT4_PANEL of every code and zero point, packed by the plain loops."""
    codes = rng.integers(-8, 8, (n, k), dtype=np.int8)
    codes[0] = -8
    scale = decode(encode(rng.uniform(0.001, 0.1, (n, k // group)), scale_dtype))
    points = rng.integers(-8, 8, (n, k // group), dtype=np.int8) if zeros else None
    weight = np.empty(bytes_of(n, k, group, scale_dtype, zeros), np.uint8)
    args = {"codes": codes, "scale": scale, "zeros": points, "weight": weight, "n": n, "k": k}
    run("pack_int4", "reference", args | {"group_size": group, "scale_dtype": scale_dtype})
    return weight


def compare(implementation: str, args: dict[str, Any], rng: np.random.Generator, m: int, k: int) -> None:
    """Random rows (one of zeros, one with NaN) through both sides."""
    values = rng.standard_normal((m, k))
    values[0, 0] = 100.0
    if m > 4:
        values[2], values[4, k - 1] = 0.0, np.nan
    x, stride = strided(encode(values, args["x_dtype"]), 3)
    sides = []
    for name in ("reference", implementation):
        y = np.full((m + 1, args["y_stride"]), 77, x.dtype)
        run("linear_w4a8_int8", name, args | {"x": x, "x_stride": stride, "y": y, "m": m, "k": k})
        sides.append(y)
    assert_same_bits(sides[1], sides[0], f"linear_w4a8_int8 m={m} n={args['n']} k={k} g={args['group_size']}")
    if m > 4:
        assert np.isnan(decode(sides[0])[4, : args["n"]]).all()


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("group", [32, 64, 128, 0])
@pytest.mark.parametrize("scale_dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations("linear_w4a8_int8"))
def test_linear_w4a8_int8_matches_reference(
    implementation: str, scale_dtype: str, group: int, zeros: bool
) -> None:
    rng = np.random.default_rng(1)
    for i, (m, n, groups) in enumerate(SIZES):
        k = groups * (group or 20)
        size = group or k
        weight = pack(rng, n, k, size, scale_dtype, zeros)
        dtype = DTYPES[i % 3]
        bias = encode(rng.standard_normal(n), dtype) if i % 2 else None
        smooth = rng.uniform(0.1, 9.0, k).astype(np.float32) if i % 4 == 1 else None
        args = {"weight": weight, "n": n, "group_size": size, "scale_dtype": scale_dtype}
        args |= {
            "zero_points": int(zeros),
            "bias": bias,
            "smooth": smooth,
            "x_dtype": dtype,
            "y_stride": n + 2,
        }
        compare(implementation, args, rng, m, k)


@pytest.mark.parametrize("implementation", implementations("linear_w4a8_int8"))
def test_linear_w4a8_int8_does_not_saturate(implementation: str) -> None:
    k, n = 1024, 64
    weight = np.empty(bytes_of(n, k, 128, "f32", True), np.uint8)
    codes, scale = np.full((n, k), 7, np.int8), np.ones((n, k // 128), np.float32)
    points = np.full((n, k // 128), -8, np.int8)
    args = {"codes": codes, "scale": scale, "zeros": points, "weight": weight, "n": n, "k": k}
    run("pack_int4", "reference", args | {"group_size": 128, "scale_dtype": "f32"})
    x, y = np.stack([np.ones(k), -np.ones(k)]).astype(np.float32), np.empty((2, n), np.float32)
    args = {"x": x, "weight": weight, "y": y, "m": 2, "n": n, "k": k, "x_stride": k, "y_stride": n}
    args |= {"group_size": 128, "zero_points": 1, "x_dtype": "f32", "scale_dtype": "f32"}
    run("linear_w4a8_int8", implementation, args)
    scale_x = np.float32(1) / np.float32(127)
    assert (y[0] == np.float32(127 * 15 * k) * scale_x).all() and (y[1] == -y[0]).all()
