# SPDX-License-Identifier: Apache-2.0
"""gptq_quantize: every implementation, the plain loops included, against the textbook's inverse Hessian.

Near-ties fall differently in float32 and float64, and one changed code moves those after it in its row; so
codes agree almost everywhere, and the objective, which GPTQ minimizes, to a thousandth.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from calibrate_helpers import TORCH, assert_equal, implementations, raw, run

OP = "gptq_quantize"


@dataclass
class Layer:
    """A weight (n, k), its Hessian (k, k) and scales (n, k / group)."""

    weight: np.ndarray
    h: np.ndarray
    scale: np.ndarray
    group: int
    bits: int

    def fields(self) -> dict[str, Any]:
        n, k = self.weight.shape
        lower = self.h.astype(np.float32)
        lower[np.triu_indices(k, 1)] = np.nan  # never read
        return dict(
            weight=self.weight, h=lower, scale=self.scale, n=n, k=k, group_size=self.group, bits=self.bits
        )

    def expand(self) -> np.ndarray:
        return np.repeat(self.scale, self.group, axis=1)

    def nearest(self) -> np.ndarray:
        high = 2 ** (self.bits - 1) - 1
        return np.clip(np.rint(self.weight / self.expand()), -high - 1, high).astype(np.int8)

    def energy(self, v: np.ndarray) -> float:
        return float(np.einsum("ni,ij,nj->", v, self.h, v, optimize=True))


def make_layer(n: int, k: int, group: int, bits: int, dead: tuple[int, ...] = (), tokens: int = 0) -> Layer:
    rng = np.random.default_rng(n * k + bits)
    mix = np.eye(k) + rng.standard_normal((k, k)) * 0.5 / np.sqrt(k)
    x = rng.standard_normal((tokens or 3 * k, k)) @ mix * np.exp(rng.standard_normal(k))
    x[:, list(dead)] = 0.0
    h = (x.T @ x).astype(np.float32).astype(np.float64)
    weight = (rng.standard_normal((n, k)) * 0.02).astype(np.float32)
    group = group if group > 0 else k
    amax = np.abs(weight.reshape(n, k // group, group)).max(axis=2)
    return Layer(weight, h, (amax / (127.5 if bits == 8 else 7.5)).astype(np.float32), group, bits)


def solve(
    layer: Layer, implementation: str, damping: float = 0.01, act_order: int = 0, retries: int = 3
) -> Any:
    codes, stats = np.full(layer.weight.shape, 99, np.int8), np.full(5, np.nan)
    more = dict(
        damping=damping, act_order=act_order, retries=retries, w_dtype="f32", codes=codes, stats=stats
    )
    run(OP, implementation, **layer.fields(), **more)
    return codes, stats


def textbook(layer: Layer, damping: float, act_order: int) -> np.ndarray:
    """Frantar et al. 2022: errors spread by the upper Cholesky factor of the damped Hessian's inverse."""
    h, w = layer.h.copy(), layer.weight.astype(np.float64)
    k, scale = w.shape[1], layer.expand().astype(np.float64)
    dead = np.diag(h) == 0
    h[dead, dead], w[:, dead] = 1.0, 0.0
    order = np.argsort(-np.where(dead, 0.0, np.diag(h)), kind="stable") if act_order else np.arange(k)
    h, w, scale = h[np.ix_(order, order)], w[:, order], scale[:, order]
    h += np.eye(k) * damping * np.mean(np.diag(h))
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    high = 2 ** (layer.bits - 1) - 1
    codes = np.empty(w.shape)
    for i in range(k):
        codes[:, i] = np.clip(np.rint(w[:, i] / scale[:, i]), -high - 1, high)
        error = (w[:, i] - codes[:, i] * scale[:, i]) / upper[i, i]
        w[:, i:] -= np.outer(error, upper[i, i:])
    return codes[:, np.argsort(order)].astype(np.int8)


CASES = [
    pytest.param(1, 32, 32, 4, (), id="n=1-k=32-g=32-int4"),
    pytest.param(40, 96, 32, 4, (3, 50), id="n=40-k=96-g=32-int4-dead"),
    pytest.param(65, 128, 64, 8, (), id="n=65-k=128-g=64-int8"),
    pytest.param(33, 300, -1, 4, (0, 299), id="n=33-k=300-channel-int4-dead"),
    pytest.param(70, 201, -1, 8, (), id="n=70-k=201-channel-int8"),
    pytest.param(520, 256, 128, 4, (7,), id="n=520-k=256-g=128-int4-dead"),
]


@pytest.mark.parametrize("act_order", [0, 1])
@pytest.mark.parametrize(("n", "k", "group", "bits", "dead"), CASES)
@pytest.mark.parametrize("implementation", implementations(OP))
def test_gptq_matches_textbook(
    implementation: str, n: int, k: int, group: int, bits: int, dead: Any, act_order: int
) -> None:
    layer = make_layer(n, k, group, bits, dead)
    codes, stats = solve(layer, implementation, act_order=act_order)
    expected = textbook(layer, 0.01, act_order)
    assert np.mean(codes == expected) >= 0.999
    weight = layer.weight.copy()
    weight[:, list(dead)] = 0.0
    error, best = weight - codes * layer.expand(), weight - expected * layer.expand()
    assert layer.energy(error) <= layer.energy(best) * (1 + 1e-3)
    assert layer.energy(error) < layer.energy(weight - layer.nearest() * layer.expand()) or n == 1
    assert stats[0] == 0.01 and stats[1] == len(dead)
    np.testing.assert_allclose(stats[2], layer.energy(error), rtol=1e-4)
    np.testing.assert_allclose(stats[3], layer.energy(weight), rtol=1e-5 if n < 512 else 0.1)
    np.testing.assert_allclose(stats[4], np.sum(error**2) / np.sum(weight**2), rtol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("implementation", implementations(OP))
def test_gptq_of_a_diagonal_hessian_rounds_to_nearest(implementation: str, bits: int) -> None:
    layer = make_layer(37, 160, 32, bits)
    layer.h = np.diag(np.random.default_rng(0).uniform(0.5, 2.0, 160).astype(np.float32)).astype(np.float64)
    codes, stats = solve(layer, implementation, act_order=1)
    assert_equal(codes, layer.nearest(), "code")
    assert stats[0] == 0.01


@pytest.mark.parametrize("implementation", implementations(OP))
def test_gptq_raises_damping_tenfold(implementation: str) -> None:
    layer = make_layer(20, 140, 140, 8)
    values, vectors = np.linalg.eigh(layer.h)
    values[0] = -0.03 * np.mean(np.diag(layer.h))
    layer.h = ((vectors * values) @ vectors.T).astype(np.float32).astype(np.float64)
    stats = solve(layer, implementation)[1]
    assert stats[0] == 0.1
    np.testing.assert_allclose(solve(layer, implementation, retries=0)[1][0], -1.0)


@pytest.mark.parametrize("implementation", implementations(OP))
def test_gptq_without_positive_hessian_rounds_to_nearest(implementation: str) -> None:
    layer = make_layer(70, 200, 50, 4, dead=(11,))
    layer.h = -layer.h
    codes, stats = solve(layer, implementation)
    expected = layer.nearest()
    expected[:, 11] = 0
    assert_equal(codes, expected, "code")
    assert stats[0] < 0 and stats[1] == 1
    weight = layer.weight.copy()
    weight[:, 11] = 0.0
    np.testing.assert_allclose(stats[2], layer.energy(weight - codes * layer.expand()), rtol=1e-5)
    np.testing.assert_allclose(stats[3], layer.energy(weight), rtol=1e-5)


@pytest.mark.parametrize("implementation", implementations(OP))
def test_gptq_energy_is_scaled_from_a_sample(implementation: str) -> None:
    # Multiples of one row hold energy in proportion to their diagonal part: the sample is then exact.
    layer = make_layer(1, 64, 64, 8)
    factors = np.random.default_rng(3).uniform(0.25, 4.0, (1100, 1)).astype(np.float32)
    layer.weight, layer.scale = layer.weight * factors, layer.scale * factors
    stats = solve(layer, implementation)[1]
    np.testing.assert_allclose(stats[3], layer.energy(layer.weight.astype(np.float64)), rtol=1e-5)


@pytest.mark.parametrize("implementation", implementations(OP))
def test_gptq_keeps_nan_to_its_row(implementation: str) -> None:
    layer = make_layer(40, 96, 32, 4)
    expected = solve(layer, implementation)[0]
    layer.weight[5, 20] = np.nan
    codes = solve(layer, implementation)[0]
    rows = np.arange(40) != 5
    assert_equal(codes[rows], expected[rows], "code")


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("implementation", implementations(OP))
def test_gptq_reads_16_bit_weights(implementation: str, dtype: str) -> None:

    layer = make_layer(33, 96, 32, 4)
    weight = torch.from_numpy(layer.weight).to(TORCH[dtype])
    layer.weight = weight.float().numpy()
    expected = solve(layer, implementation)[0]
    codes, stats = np.empty_like(expected), np.empty(5)
    fields = layer.fields() | dict(weight=raw(weight), damping=0.01, act_order=0, retries=3, w_dtype=dtype)
    run(OP, implementation, **fields, codes=codes, stats=stats)
    assert_equal(codes, expected, "code")
