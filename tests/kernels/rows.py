# SPDX-License-Identifier: Apache-2.0
"""Float rows in NumPy (float32, float16, bfloat16 as uint16), and runs of one implementation."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pennyweight import _C

Array = NDArray[Any]
DTYPES = ["bf16", "f16", "f32"]
NEEDS = {"reference": None, "avx2": "avx2", "avx512vnni": "avx512vnni", "avx512bf16": "avx512bf16"}


def implementations(op: str) -> list[str]:
    """Implementations of ``op`` that this machine has, without the reference."""
    names: list[str] = _C.ops()[op]["implementations"]
    features = _C.features()
    return [name for name in names if name != "reference" and features[NEEDS[name]]]


def run(op: str, implementation: str, args: dict[str, Any]) -> None:
    """Run ``implementation`` of ``op`` and prove that nothing else ran."""
    _C.run(op, args, implementation)
    assert _C.last_run(op) == implementation


def encode(values: Array, dtype: str) -> Array:
    """Float values as ``dtype``: "f32", "f16", or "bf16" (uint16 bits, round half to even)."""
    if dtype == "f32":
        return values.astype(np.float32)
    if dtype == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype(np.uint16)


def decode(values: Array) -> Array:
    """The float32 values of what `encode` made."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def strided(values: Array, extra: int) -> tuple[Array, int]:
    """The rows of ``values`` set ``extra`` elements apart, NaN between them, and the stride."""
    rows, columns = values.shape
    gap = np.full((rows, extra), np.nan, np.float32)
    filler = encode(gap, {np.uint16: "bf16", np.float16: "f16", np.float32: "f32"}[values.dtype.type])
    return np.ascontiguousarray(np.concatenate([values, filler], axis=1)), columns + extra


def assert_same_bits(got: Array, expected: Array, what: str) -> None:
    """Bit for bit, NaN equal to NaN of any payload; says where the first difference is."""
    if got.dtype in (np.float32, np.float16):
        both_nan = np.isnan(got) & np.isnan(expected)
        kind = np.uint32 if got.dtype == np.float32 else np.uint16
        same = both_nan | (got.view(kind) == expected.view(kind))
    else:
        same = got == expected
    if not same.all():
        where = tuple(int(i) for i in np.argwhere(~same)[0])
        pair = f"{got[where]!r} at {where}, expected {expected[where]!r}"
        raise AssertionError(f"{what}: {pair} ({(~same).sum()} differ)")
