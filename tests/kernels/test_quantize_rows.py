# SPDX-License-Identifier: Apache-2.0
"""Per-token quantization, alone and fused: every implementation gives the plain loops' bits."""

from typing import Any

import numpy as np
import pytest
from rows import DTYPES, Array, assert_same_bits, encode, implementations, run, strided

from pennyweight import _C

FORMATS = ["int8", "fp8"]
SIZES = [(1, 1), (3, 15), (2, 16), (5, 17), (1, 63), (4, 160), (7, 333), (2, 4096)]


def cases(op: str) -> list[Any]:
    """(implementation, format) of an op that exists in both formats."""
    pairs = [(name, kind) for kind in FORMATS for name in implementations(f"{op}_{kind}")]
    return [pytest.param(name, kind, id=f"{name}-{kind}") for name, kind in pairs]


def awkward_rows(rng: np.random.Generator, m: int, k: int) -> Array:
    """(m, k) float32: an outlier, then one row each of zeros, subnormals, NaN, Inf, ties, large values."""
    x = rng.standard_normal((m, k)).astype(np.float32)
    x[0, k // 2] = 40.0
    kinds = [np.zeros(k), rng.integers(-9, 9, k) * 1e-40, x[0].copy(), x[0].copy()]
    kinds += [np.round(x[0] * 8) / 2, x[0] * 6e4]
    for row, values in enumerate(kinds[: m - 1], start=1):
        x[row] = values
    if m > 3:
        x[3, k - 1] = np.nan
    if m > 4:
        x[4, 0] = -np.inf
    return x


def compare(op: str, implementation: str, args: dict[str, Any], outputs: dict[str, Array]) -> None:
    """Run both sides into copies of ``outputs`` full of a marker; what is not written must keep it."""
    sides = []
    for name in ("reference", implementation):
        side = {key: np.full_like(value, 0x55) for key, value in outputs.items()}
        run(op, name, args | side)
        sides.append(side)
    for key in outputs:
        assert_same_bits(sides[1][key], sides[0][key], f"{op} {key}")


def code_outputs(m: int, k: int) -> dict[str, Array]:
    """Buffers for codes and scale; one row more than is written, which must stay as it is."""
    return {"codes": np.empty((m + 1, k), np.uint8), "scale": np.empty(m + 1, np.float32)}


@pytest.mark.parametrize("smooth", [False, True], ids=["plain", "smooth"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation, kind", cases("quantize_per_token"))
def test_quantize_per_token_matches_reference(
    implementation: str, kind: str, dtype: str, smooth: bool
) -> None:
    rng = np.random.default_rng(1)
    for m, k in SIZES:
        x, stride = strided(encode(awkward_rows(rng, m, k), dtype), 3)
        divisor = rng.uniform(0.1, 10.0, k).astype(np.float32) if smooth else None
        args = {"x": x, "smooth": divisor, "m": m, "k": k, "x_stride": stride, "x_dtype": dtype}
        compare(f"quantize_per_token_{kind}", implementation, args, code_outputs(m, k))


@pytest.mark.parametrize("implementation, kind", cases("quantize_per_token"))
def test_quantize_per_token_matches_reference_on_every_bfloat16(implementation: str, kind: str) -> None:
    finite = np.arange(0x7F80, dtype=np.uint16)
    for top in (0x3F80, 0x43E0, 0x42FE, 0x0001, 0x7F7F):
        x = np.ascontiguousarray(finite[: top + 1][None])
        x[0, ::3] |= 0x8000
        args = {"x": x, "smooth": None, "m": 1, "k": x.size, "x_stride": x.size, "x_dtype": "bf16"}
        compare(f"quantize_per_token_{kind}", implementation, args, code_outputs(1, x.size))


@pytest.mark.parametrize("dtype, most", [("bf16", 0), ("f16", 0), ("bf16", 127), ("bf16", 86), ("bf16", -94)])
@pytest.mark.parametrize("implementation, kind", cases("quantize_per_token"))
def test_quantize_per_token_divides_every_value_by_every_scale(
    implementation: str, kind: str, dtype: str, most: int
) -> None:
    # A quotient depends on the two significands alone, but for what underflows on its way: a row for each of the amax,
    # with every significand in the twelve binades below it, beyond which codes are 0.
    bits = {"bf16": 7, "f16": 10}[dtype]
    significands = 1 + np.arange(2**bits) / 2**bits
    values = np.concatenate([significands * 2.0**-i for i in range(12)])
    rows = np.minimum(values[None, :], significands[:, None])
    rows[:, ::3] *= -1
    x = encode(rows * 2.0**most, dtype)
    m, k = x.shape
    args = {"x": x, "smooth": None, "m": m, "k": k, "x_stride": k, "x_dtype": dtype}
    compare(f"quantize_per_token_{kind}", implementation, args, code_outputs(m, k))


@pytest.mark.parametrize("implementation, kind", cases("quantize_per_token"))
def test_quantize_per_token_marks_bad_rows_by_nan_scales(implementation: str, kind: str) -> None:
    x = awkward_rows(np.random.default_rng(2), 6, 100)
    args = {"x": x, "m": 6, "k": 100, "x_stride": 100, "x_dtype": "f32"}
    out = code_outputs(6, 100)
    run(f"quantize_per_token_{kind}", implementation, args | out)
    assert np.isnan(out["scale"][:6]).tolist() == [False, False, False, True, True, False]
    assert out["scale"][1] == 0.0 and not out["codes"][1].any()


@pytest.mark.parametrize("offset", [0, 16], ids=["streamed", "unaligned"])
@pytest.mark.parametrize("implementation, kind", cases("quantize_per_token"))
def test_quantize_per_token_of_more_codes_than_a_cache_holds(
    implementation: str, kind: str, offset: int
) -> None:
    k, block = 8192, 33
    m = _C.features()["l3_bytes"] // 2 // k + 2
    few = encode(awkward_rows(np.random.default_rng(6), block, k), "bf16")
    x = np.resize(few, (m, k))
    args = {"smooth": None, "k": k, "x_stride": k, "x_dtype": "bf16"}
    expected, out = code_outputs(block, k), code_outputs(m, 1)
    run(f"quantize_per_token_{kind}", "reference", args | expected | {"x": few, "m": block})
    room = np.full(m * k + 128, 0x55, np.uint8)  # codes on a line of their own, or not; a marker around them
    first = -room.ctypes.data % 64 + offset
    out["codes"] = room[first : first + m * k]
    run(f"quantize_per_token_{kind}", implementation, args | out | {"x": x, "m": m})
    assert_same_bits(out["scale"][:m], np.resize(expected["scale"][:block], m), "scale")
    assert np.array_equal(out["codes"].reshape(m, k), np.resize(expected["codes"][:block], (m, k)))
    assert (room[:first] == 0x55).all() and (room[first + m * k :] == 0x55).all()


@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation, kind", cases("rms_norm_quantize"))
def test_rms_norm_quantize_matches_reference(
    implementation: str, kind: str, dtype: str, residual: bool
) -> None:
    rng = np.random.default_rng(3)
    for m, k in SIZES:
        for eps in (1e-5, 0.0):
            x, stride = strided(encode(awkward_rows(rng, m, k), dtype), 5)
            other, other_stride = strided(encode(rng.standard_normal((m, k)), dtype), 2)
            args = {"x": x, "weight": encode(rng.uniform(0.5, 2.0, k), dtype), "m": m, "k": k}
            args |= {"x_stride": stride, "residual": other if residual else None}
            args |= {"residual_stride": other_stride, "eps": eps, "x_dtype": dtype}
            outputs = code_outputs(m, k) | ({"hidden": np.empty((m + 1, k), x.dtype)} if residual else {})
            compare(f"rms_norm_quantize_{kind}", implementation, args, outputs)


@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations("rms_norm"))
def test_rms_norm_matches_reference(implementation: str, dtype: str, residual: bool) -> None:
    rng = np.random.default_rng(4)
    for m, k in SIZES:
        x, stride = strided(encode(rng.standard_normal((m, k)), dtype), 5)
        other, other_stride = strided(encode(rng.standard_normal((m, k)), dtype), 2)
        args = {"x": x, "weight": encode(rng.uniform(0.5, 2.0, k), dtype), "m": m, "k": k}
        args |= {"x_stride": stride, "residual": other if residual else None}
        args |= {"residual_stride": other_stride, "eps": 1e-5, "x_dtype": dtype}
        outputs = {name: np.zeros((m + 1, k), x.dtype) for name in ("normed", "hidden")[: 1 + residual]}
        compare("rms_norm", implementation, args, outputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations("rms_norm"))
def test_rms_norm_sums_squares_in_the_order_of_its_lanes(implementation: str, dtype: str) -> None:
    # Lane 0 begins with 2^24, which swallows every 1 after it; in another lane they would count, and a thirtieth of
    # the values would be rounded another way.
    k = 1 << 18
    x = np.zeros((1, k))
    x[:, :4096] = np.random.default_rng(5).standard_normal(4096)
    x[:, ::64] = 1.0
    x[:, 0] = 4096.0
    args = {"x": encode(x, dtype), "weight": encode(np.ones(k), dtype), "m": 1, "k": k}
    args |= {"x_stride": k, "residual": None, "residual_stride": 0, "eps": 1e-5, "x_dtype": dtype}
    compare("rms_norm", implementation, args, {"normed": np.zeros((2, k), args["x"].dtype)})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", implementations("rms_norm"))
def test_rms_norm_adds_its_lanes_pairwise(implementation: str, dtype: str) -> None:
    # Another order moves the sum by a unit or two of 2^-23, in one row or another; and so one in 2^15 of the values.
    m, k = 16, 1 << 15
    rng = np.random.default_rng(6)
    x = rng.standard_normal((m, k)) * np.tile(rng.uniform(0.01, 4.0, 64), k // 64)
    args = {"x": encode(x, dtype), "weight": encode(np.ones(k), dtype), "m": m, "k": k}
    args |= {"x_stride": k, "residual": None, "residual_stride": 0, "eps": 1e-5, "x_dtype": dtype}
    compare("rms_norm", implementation, args, {"normed": np.zeros((m + 1, k), args["x"].dtype)})


@pytest.mark.parametrize("op", ["rms_norm", "rms_norm_quantize_int8", "rms_norm_quantize_fp8"])
def test_rms_norm_gives_canonical_nan(op: str) -> None:
    # NaN with payloads; infinities that cancel, or meet a factor of 0 (the processor's NaN is negative); overflow.
    m, k = 4, 160
    rng = np.random.default_rng(10)
    x, other = (encode(rng.standard_normal((m, k)), "bf16") for _ in range(2))
    x[0, 5], x[1, 100], other[1, 100], other[2, 159], x[3, 0] = 0x7FA5, 0x7F80, 0xFF80, 0xFFFF, 0x7F80
    weight = encode(rng.uniform(0.5, 2.0, k), "bf16")
    weight[7] = 0x7F7F
    args = {"x": x, "residual": other, "weight": weight, "m": m, "k": k, "x_stride": k, "residual_stride": k}
    args |= {"eps": 1e-5, "x_dtype": "bf16"}
    outputs = code_outputs(m, k) if "quantize" in op else {"normed": np.empty((m + 1, k), np.uint16)}
    for implementation in implementations(op):
        compare(op, implementation, args, outputs | {"hidden": np.empty((m + 1, k), np.uint16)})


@pytest.mark.parametrize("implementation, kind", cases("rms_norm_quantize"))
def test_rms_norm_quantize_of_more_than_a_cache_holds(implementation: str, kind: str) -> None:
    k, block = 8192, 33
    m = _C.features()["l3_bytes"] // 2 // k + 2
    rng = np.random.default_rng(7)
    few, other = (encode(awkward_rows(rng, block, k), "bf16") for _ in range(2))
    args = {"weight": encode(rng.uniform(0.5, 2.0, k), "bf16"), "k": k, "x_stride": k, "residual_stride": k}
    args |= {"eps": 1e-5, "x_dtype": "bf16"}
    expected = code_outputs(block, k) | {"hidden": np.empty((block, k), np.uint16)}
    run(f"rms_norm_quantize_{kind}", "reference", args | expected | {"x": few, "residual": other, "m": block})
    out = {"scale": np.empty(m, np.float32)}
    room = np.full(m * k + 64, 0x55, np.uint8)
    hidden_room = np.full(m * k + 32, 0x55, np.uint16)
    out["codes"] = room[-room.ctypes.data % 64 :][: m * k]
    out["hidden"] = hidden_room[-hidden_room.ctypes.data % 64 // 2 :][: m * k]
    inputs = {"x": np.resize(few, (m, k)), "residual": np.resize(other, (m, k)), "m": m}
    run(f"rms_norm_quantize_{kind}", implementation, args | out | inputs)
    assert_same_bits(out["scale"], np.resize(expected["scale"][:block], m), "scale")
    assert_same_bits(out["hidden"].reshape(m, k), np.resize(expected["hidden"], (m, k)), "hidden")
    assert np.array_equal(out["codes"].reshape(m, k), np.resize(expected["codes"][:block], (m, k)))


@pytest.mark.parametrize("weight", [1.0, 2.0**100], ids=["weight_1", "weight_2_100"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-118], ids=["values_1", "values_2_118"])
@pytest.mark.parametrize("implementation, kind", cases("rms_norm_quantize"))
def test_rms_norm_quantize_keeps_subnormals_that_count(
    implementation: str, kind: str, scale: float, weight: float
) -> None:
    # bf16's instruction makes 0 of them. A large weight, or a small scale, brings them back among the codes.
    rng = np.random.default_rng(8)
    m, k = 4, 1024
    x = rng.standard_normal((m, k)) * scale
    x[:, ::2] *= 2.0**-126 / scale
    weights = np.full(k, min(weight, 2.0**100))
    weights[1::2] /= 2.0**40 if weight > 1 else 1.0
    weights[0::2] *= 2.0**20 if weight > 1 else 1.0
    args = {"x": encode(x, "bf16"), "weight": encode(weights, "bf16"), "m": m, "k": k, "x_stride": k}
    args |= {"residual": None, "residual_stride": 0, "eps": 1.0, "x_dtype": "bf16"}
    compare(f"rms_norm_quantize_{kind}", implementation, args, code_outputs(m, k))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation, kind", cases("silu_mul_quantize"))
def test_silu_mul_quantize_matches_reference(implementation: str, kind: str, dtype: str) -> None:
    rng = np.random.default_rng(4)
    for m, k in SIZES:
        gate_up = np.concatenate([awkward_rows(rng, m, k) * 3, rng.standard_normal((m, k))], axis=1)
        x, stride = strided(encode(gate_up, dtype), 7)
        args = {"gate_up": x, "m": m, "k": k, "x_stride": stride, "x_dtype": dtype}
        compare(f"silu_mul_quantize_{kind}", implementation, args, code_outputs(m, k))


@pytest.mark.parametrize("implementation, kind", cases("silu_mul_quantize"))
def test_silu_mul_quantize_matches_reference_on_every_bfloat16(implementation: str, kind: str) -> None:
    gates = np.arange(1 << 16, dtype=np.uint16)
    gates = gates[(gates & 0x7FFF) < 0x4300]  # to +-128, beyond the clamps of exp
    rows = gates.reshape(-1, 16)  # short rows: a code's scale comes from values near it
    x = np.ascontiguousarray(np.concatenate([rows, np.full_like(rows, 0x3F80)], axis=1))
    args = {"gate_up": x, "m": len(rows), "k": 16, "x_stride": 32, "x_dtype": "bf16"}
    compare(f"silu_mul_quantize_{kind}", implementation, args, code_outputs(len(rows), 16))


@pytest.mark.parametrize("up", [1.0, 2.0**127], ids=["up_1", "up_2_127"])
@pytest.mark.parametrize("implementation, kind", cases("silu_mul_quantize"))
def test_silu_mul_quantize_keeps_subnormals_that_count(implementation: str, kind: str, up: float) -> None:
    # As of RMSNorm: tiny gates beside large factors, and rows that are tiny all over.
    gates = np.arange(1, 0x0400, dtype=np.uint16)  # up to 2^-119
    rows = np.stack([gates, gates | 0x8000])
    factor = np.full_like(rows, encode(np.array([up]), "bf16")[0])
    x = np.ascontiguousarray(np.concatenate([rows, factor], axis=1))
    args = {"gate_up": x, "m": 2, "k": gates.size, "x_stride": x.shape[1], "x_dtype": "bf16"}
    compare(f"silu_mul_quantize_{kind}", implementation, args, code_outputs(2, gates.size))


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("implementation", implementations("silu_mul"))
def test_silu_mul_matches_reference_on_every_value(implementation: str, dtype: str) -> None:
    gates = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    kind = np.uint16 if dtype == "bf16" else np.float16
    for up in (1.0, -3.0, 2.0**-14):  # the last makes subnormals of the smallest
        factor = np.full((256, 256), up)
        x = np.ascontiguousarray(np.concatenate([gates.view(kind), encode(factor, dtype)], axis=1))
        args = {"gate_up": x, "m": 256, "k": 256, "x_stride": 512, "x_dtype": dtype}
        compare("silu_mul", implementation, args, {"y": np.zeros((257, 256), kind)})


@pytest.mark.parametrize("k", [64, 511, 512, 4100])
@pytest.mark.parametrize("implementation", implementations("quantize_per_token_fp8"))
def test_quantize_per_token_of_rows_with_outliers(implementation: str, k: int) -> None:
    # Most values are below the smallest normal code, as beside the outliers of a Llama's down projection.
    x = np.random.default_rng(9).standard_normal((40, k)) * 10.0 ** -(np.arange(40)[:, None] ** 0.7)
    x[:, k // 3] = 1.0
    args = {"x": encode(x, "bf16"), "smooth": None, "m": 40, "k": k, "x_stride": k, "x_dtype": "bf16"}
    compare("quantize_per_token_fp8", implementation, args, code_outputs(40, k))
