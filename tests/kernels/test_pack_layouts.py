# SPDX-License-Identifier: Apache-2.0
"""Layout ops against docs/layouts.md, stated once more as NumPy reshapes."""

from typing import Any

import numpy as np
import pytest
import torch
from calibrate_helpers import TORCH, assert_equal, raw, run
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

SHAPES = [(1, 1), (3, 5), (64, 8), (65, 31), (100, 260), (130, 300)]


def pad(a: np.ndarray, rows: int, columns: int, value: int = 0) -> np.ndarray:
    """Pads to multiples of `rows` and `columns`."""
    extra = ((0, -a.shape[0] % rows), (0, -a.shape[1] % columns))
    return np.pad(a, extra, constant_values=value)


def int8_panel(codes: np.ndarray) -> np.ndarray:
    padded = pad(codes, 64, 4)
    stored = (padded.astype(np.int16) + 128).astype(np.uint8)
    n, k = stored.shape
    return stored.reshape(n // 64, 64, k // 4, 4).transpose(0, 2, 1, 3).ravel()


def fp8_panel(codes: np.ndarray) -> np.ndarray:
    padded = pad(codes, 64, 4)
    n, k = padded.shape
    return padded.reshape(n // 64, 16, 4, k // 4, 2, 2).transpose(0, 3, 1, 4, 2, 5).ravel()


def int4_panel(codes: np.ndarray, scale: np.ndarray, zeros: np.ndarray | None, group: int) -> np.ndarray:
    """codes (N, K), scale (N, K / G) in its stored type, zeros (N, K / G)."""
    panels, groups = -(-codes.shape[0] // 64), codes.shape[1] // group
    nibbles = pad(codes.reshape(-1, groups, group).reshape(codes.shape[0] * groups, group), 1, 8) + 8
    nibbles = nibbles.reshape(codes.shape[0], groups, -1, 8)
    nibbles = np.pad(nibbles, ((0, panels * 64 - len(codes)), (0, 0), (0, 0), (0, 0)), constant_values=8)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # of inputs, from the lowest nibble up
    words = (nibbles[..., order].astype(np.uint32) << (4 * np.arange(8, dtype=np.uint32))).sum(
        -1, dtype=np.uint32
    )

    def blocks(a: np.ndarray) -> np.ndarray:  # (N, groups, ...) -> (panels, groups, bytes)
        a = np.pad(a, ((0, panels * 64 - len(a)), *(((0, 0),) * (a.ndim - 1))))
        a = a.reshape(panels, 64, groups, -1).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(a).view(np.uint8).reshape(panels, groups, -1)

    parts = [blocks(words), blocks(scale)] + ([] if zeros is None else [blocks(zeros)])
    return np.concatenate(parts, axis=2).ravel()


def random_codes(n: int, k: int, low: int, high: int, dtype: Any) -> np.ndarray:
    return np.random.default_rng(n * k).integers(low, high, (n, k), endpoint=True).astype(dtype)


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_pack_panel_matches_layout_and_returns(name: str, n: int, k: int) -> None:
    low, high, dtype = (-128, 127, np.int8) if name == "int8" else (0, 255, np.uint8)
    codes = random_codes(n, k, low, high, dtype)
    expected = int8_panel(codes) if name == "int8" else fp8_panel(codes)
    weight, back = np.full_like(expected, 77), np.empty_like(codes)
    run(f"pack_{name}", "reference", codes=codes, weight=weight, n=n, k=k)
    assert_equal(weight, expected, "byte")
    run(f"unpack_{name}", "reference", weight=weight, codes=back, n=n, k=k)
    assert_equal(back, codes, "code")
    scale = np.random.default_rng(k).uniform(0.01, 1.0, n).astype(np.float32)
    out = np.empty((n, k), np.float32)
    run(f"dequantize_{name}", "reference", weight=weight, scale=scale, out=out, n=n, k=k)
    values = codes.astype(np.float32)
    if name == "fp8":
        values = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(out, values * scale[:, None])


INT4_CASES = [
    (1, 32, 32), (65, 128, 64), (64, 256, 128), (130, 384, 128), (3, 7, 7), (70, 300, 300), (20, 520, 520),
]  # fmt: skip


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("scale_dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(("n", "k", "group"), INT4_CASES)
def test_pack_int4_matches_layout_and_returns(
    n: int, k: int, group: int, scale_dtype: str, zero_points: bool
) -> None:
    rng, groups = np.random.default_rng(n + k), k // group
    codes = random_codes(n, k, -8, 7, np.int8)
    stored = torch.from_numpy(rng.uniform(0.01, 1.0, (n, groups))).to(TORCH[scale_dtype])
    scale = stored.float().numpy()
    zeros = rng.integers(-8, 8, (n, groups)).astype(np.int8) if zero_points else None
    expected = int4_panel(codes, raw(stored), zeros, group)
    weight = np.full_like(expected, 77)
    sizes = dict(n=n, k=k, group_size=group, scale_dtype=scale_dtype)
    run("pack_int4", "reference", codes=codes, scale=scale, zeros=zeros, weight=weight, **sizes)
    assert_equal(weight, expected, "byte")
    back, back_scale = np.empty_like(codes), np.empty_like(scale)
    back_zeros = np.empty_like(zeros) if zeros is not None else None
    run("unpack_int4", "reference", weight=weight, codes=back, scale=back_scale, zeros=back_zeros, **sizes)
    assert_equal(back, codes, "code")
    assert_equal(back_scale, scale, "scale")
    if zeros is not None and back_zeros is not None:
        assert_equal(back_zeros, zeros, "zero point")
    out = np.empty((n, k), np.float32)
    run("dequantize_int4", "reference", weight=weight, out=out, zero_points=int(zero_points), **sizes)
    shift = 0 if zeros is None else np.repeat(zeros.astype(np.float32), group, axis=1)
    assert_equal(out, (codes - shift).astype(np.float32) * np.repeat(scale, group, axis=1))


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 64, 101])
def test_pack_nibbles_matches_compressed_tensors(columns: int) -> None:
    codes = random_codes(13, columns, -8, 7, np.int8)
    words = np.full((13, -(-columns // 8)), -1, np.int32)
    run("pack_nibbles", "reference", codes=codes, words=words, rows=13, columns=columns)
    assert_equal(words, pack_to_int32(torch.from_numpy(codes), 4).numpy(), "word")
    back = np.empty_like(codes)
    run("unpack_nibbles", "reference", codes=back, words=words, rows=13, columns=columns)
    assert_equal(back, codes, "code")
