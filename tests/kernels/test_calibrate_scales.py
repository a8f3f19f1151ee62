# SPDX-License-Identifier: Apache-2.0
"""weight_scales and quantize_weight against compressed-tensors and a float64 search in NumPy."""

import numpy as np
import pytest
import torch
from calibrate_helpers import TORCH, assert_equal, implementations, raw, run
from compressed_tensors.quantization import QuantizationArgs, QuantizationStrategy
from compressed_tensors.quantization.utils import calculate_qparams

FORMATS = {"int8": 8, "int4": 4, "fp8": 0}
LIMITS = {"int8": 127.5, "int4": 7.5, "fp8": 448.0}
SHAPES = [(1, 1, 1), (5, 32, 32), (67, 384, 128), (33, 200, 200), (9, 130, 65)]
EPS = {"f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}


def make_weight(n: int, k: int, dtype: str, seed: int = 0) -> torch.Tensor:
    return (torch.randn(n, k, generator=torch.Generator().manual_seed(seed + n * k)) * 0.02).to(TORCH[dtype])


def find_scales(
    weight: torch.Tensor, group: int, scheme: str, implementation: str, mse: int = 0, grid: int = 100,
    maxshrink: float = 0.2, patience: int = 5, norm: float = 2.4,
) -> np.ndarray:  # fmt: skip
    (n, k), dtype = weight.shape, {v: key for key, v in TORCH.items()}[weight.dtype]
    scale = np.full((n, k // group), np.nan, np.float32)
    sizes = dict(n=n, k=k, group_size=group, format=FORMATS[scheme], w_dtype=dtype)
    search = dict(mse=mse, grid=grid, patience=patience, maxshrink=maxshrink, norm=norm)
    run("weight_scales", implementation, weight=raw(weight), scale=scale, **sizes, **search)
    return scale


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("scheme", FORMATS)
@pytest.mark.parametrize(("n", "k", "group"), SHAPES)
@pytest.mark.parametrize("implementation", implementations("weight_scales"))
def test_minmax_scales_equal_compressed_tensors(
    implementation: str, n: int, k: int, group: int, scheme: str, dtype: str
) -> None:
    weight = make_weight(n, k, dtype)
    weight[0, :group] = 0.0  # a scale that is replaced by the dtype's eps
    weight[-1, -1] = 60000.0
    groups = weight.reshape(n, k // group, group)
    args = QuantizationArgs(
        num_bits=4 if scheme == "int4" else 8,
        type="float" if scheme == "fp8" else "int",
        strategy=QuantizationStrategy.CHANNEL,
    )
    expected = calculate_qparams(groups.amin(-1), groups.amax(-1), args)[0]
    scale = find_scales(weight, group, scheme, implementation)
    assert_equal(scale, expected.float().numpy(), "scale")


def decoded(v: np.ndarray, scheme: str) -> np.ndarray:
    """The value of the code of v = w / scale."""
    if scheme == "fp8":
        return torch.from_numpy(v).clamp(-448, 448).to(torch.float8_e4m3fn).double().numpy()
    return np.clip(np.rint(v), -np.floor(LIMITS[scheme]) - 1, np.floor(LIMITS[scheme])).astype(np.float64)


def candidate(amax: np.ndarray, step: int, grid: int, scheme: str) -> np.ndarray:
    shrunk = (amax * np.float32(1 - step / grid)).astype(np.float32)
    scale = (shrunk / np.float32(LIMITS[scheme])).astype(np.float32)
    return np.where(scale == 0, np.float32(EPS["f32"]), scale)


def search(w: np.ndarray, scheme: str, grid: int, maxshrink: float, patience: int, norm: float) -> np.ndarray:
    """The candidates' errors (steps tried, groups) of w (groups, group size) float32, in float64."""
    amax, errors, idle = np.abs(w).max(1), [], 0
    for step in range(int(maxshrink * grid)):
        scale = candidate(amax, step, grid, scheme)[:, None]
        error = (np.abs(decoded(w / scale, scheme) * scale.astype(np.float64) - w) ** norm).sum(1)
        idle = 0 if not errors or (error < np.min(errors, axis=0)).any() else idle + 1
        errors.append(error)
        if idle >= patience:
            break
    return np.array(errors)


MSE_CASES = [
    pytest.param(40, 256, 128, 100, 0.2, 5, 2.4, id="study"),
    pytest.param(1, 32, 32, 100, 0.2, 2, 2.4, id="one-group-stops-early"),
    pytest.param(3, 75, 75, 200, 0.8, 12, 2.0, id="more-steps-than-a-mask"),
    pytest.param(2, 1000, 1000, 100, 0.2, 5, 3.3, id="channel"),
]


@pytest.mark.parametrize("scheme", FORMATS)
@pytest.mark.parametrize(("n", "k", "group", "grid", "maxshrink", "patience", "norm"), MSE_CASES)
@pytest.mark.parametrize("implementation", implementations("weight_scales"))
def test_mse_scales_have_the_least_error(
    implementation: str, n: int, k: int, group: int, grid: int, maxshrink: float, patience: int, norm: float,
    scheme: str,
) -> None:  # fmt: skip
    same = 0
    for seed in range(10):
        weight = make_weight(n, k, "f32", seed)
        w = weight.numpy().reshape(-1, group)
        errors = search(w, scheme, grid, maxshrink, patience, norm)
        scale = find_scales(weight, group, scheme, implementation, 1, grid, maxshrink, patience, norm).ravel()
        steps = np.array([candidate(np.abs(w).max(1), s, grid, scheme) for s in range(len(errors))])
        found = steps == scale
        assert found.any(0).all(), "a scale that no step tried"
        # Errors of float32 sums and of the power are below 1e-5 (of each term, and all terms are positive).
        assert (errors[np.argmax(found, axis=0), np.arange(len(w))] <= errors.min(0) * (1 + 2e-5)).all()
        same += int((np.argmax(found, axis=0) == np.argmin(errors, axis=0)).sum())
    assert same >= 0.99 * 10 * len(w)


@pytest.mark.parametrize("implementation", implementations("weight_scales"))
def test_mse_search_finds_a_far_optimum(implementation: str) -> None:
    # One weight of 1 among 1000 within 0.3: clipping it costs less than coarse steps for all others.
    weight = torch.rand(1, 1000, generator=torch.Generator().manual_seed(0)) * 0.6 - 0.3
    weight[0, 500] = 1.0
    errors = search(weight.numpy(), "int4", 200, 0.8, 160, 2.0)[:, 0]
    assert np.argmin(errors) > 100
    scale = find_scales(weight, 1000, "int4", implementation, 1, 200, 0.8, 160, 2.0)
    assert_equal(scale[0], candidate(np.ones(1, np.float32), int(np.argmin(errors)), 200, "int4"), "scale")


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("implementation", implementations("weight_scales"))
def test_mse_scales_of_16_bit_weights_match_plain_loops(implementation: str, dtype: str) -> None:
    weight = make_weight(64, 256, dtype)
    weight[3] = 0.0
    expected = find_scales(weight, 128, "int4", "reference", mse=1)
    scale = find_scales(weight, 128, "int4", implementation, mse=1)
    assert (scale == expected).mean() >= 0.99
    assert (scale <= find_scales(weight, 128, "int4", implementation)).all()
    np.testing.assert_array_equal(scale[3], np.float32(EPS[dtype]))


SPECIAL = [
    0.0,
    -0.0,
    1e-42,
    -1e-42,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    126.5,
    127.5,
    1e30,
    -1e30,
    448.0,
    464.0,
    465.0,
]
SPECIAL += [
    float("nan"),
    float("inf"),
    -float("inf"),
    2.0**-10,
    3 * 2.0**-10,
    2.0**-9,
    2.0**-6,
    0.0146,
    17.0,
    19.0,
]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("scheme", FORMATS)
@pytest.mark.parametrize(("n", "k", "group"), [(3, 64, 32), (17, 75, 25), (2, 1, 1), (5, 1000, 1000)])
@pytest.mark.parametrize("implementation", implementations("quantize_weight"))
def test_quantize_weight_equals_division_and_rounding(
    implementation: str, n: int, k: int, group: int, scheme: str, dtype: str
) -> None:
    weight = make_weight(n, k, dtype) * 100
    special = torch.tensor(SPECIAL)[:k].to(TORCH[dtype])
    weight[0, : len(special)] = special
    scale = np.random.default_rng(k).uniform(0.001, 0.1, (n, k // group)).astype(np.float32)
    scale[0] = 1.0
    codes = np.full((n, k), 99, np.uint8 if scheme == "fp8" else np.int8)
    sizes = dict(n=n, k=k, group_size=group, format=FORMATS[scheme], w_dtype=dtype)
    run("quantize_weight", implementation, weight=raw(weight), scale=scale, codes=codes, **sizes)
    quotient = weight.float() / torch.from_numpy(np.repeat(scale, group, axis=1))
    if scheme == "fp8":
        expected = quotient.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    else:
        limit = LIMITS[scheme] - 0.5
        expected = quotient.round().clamp(-limit - 1, limit).nan_to_num(0).to(torch.int8).numpy()
    assert_equal(codes, expected, "code")
