# SPDX-License-Identifier: Apache-2.0
"""Each algorithm alone, on tensors."""

from __future__ import annotations

import pytest
import torch

from pennyweight import reference
from pennyweight.algorithms import gptq, rtn, scales, smoothquant
from pennyweight.errors import ShapeError, UnsupportedError


def problem(n: int = 16, k: int = 64, tokens: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight and correlated activations, loud in some channels."""
    g = torch.Generator().manual_seed(7)
    mix = torch.randn(k, k, generator=g) / k**0.5 + torch.eye(k)
    x = torch.randn(tokens, k, generator=g) @ mix * torch.rand(k, generator=g) * 3
    return torch.randn(n, k, generator=g), x


def error(
    weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, x: torch.Tensor, size: int
) -> float:
    """|X (W - Q)^T| / |X W^T| in float64."""
    difference = (reference.dequantize(codes, scale, size) - weight).double()
    return float((x.double() @ difference.T).norm() / (x.double() @ weight.double().T).norm())


@pytest.mark.parametrize("act_order", ["static", "none"])
@pytest.mark.parametrize(("kind", "bits", "size"), [("int4", 4, 32), ("int4", 4, -1), ("int8", 8, -1)])
def test_gptq_beats_rounding_and_tells_its_error(kind: str, bits: int, size: int, act_order: str) -> None:
    weight, x = problem()
    scale = scales.minmax(weight, kind, size)
    options = {"bits": bits, "group_size": size, "act_order": act_order}
    found = gptq.solve(weight, x.T @ x, scale, damping=0.01, **options)
    codes = rtn.quantize_weight(weight, scale, kind, group_size=size)
    ours, plain = error(weight, found.codes, scale, x, size), error(weight, codes, scale, x, size)
    assert ours < 0.8 * plain
    assert found.output_error == pytest.approx(ours, rel=1e-3)
    assert found.damping == 0.01 and found.dead_columns == 0
    assert int(found.codes.min()) >= -(2 ** (bits - 1)) and int(found.codes.max()) < 2 ** (bits - 1)
    assert torch.equal(gptq.quantize_weight(weight, x.T @ x, scale, **options), found.codes)


def test_gptq_of_uncorrelated_inputs_is_rounding() -> None:
    weight, _ = problem()
    scale = scales.minmax(weight, "int4", 32)
    codes = gptq.quantize_weight(weight, torch.eye(64) * 5, scale, group_size=32)
    assert torch.equal(codes, rtn.quantize_weight(weight, scale, "int4", group_size=32))


def test_gptq_zeroes_dead_columns() -> None:
    weight, x = problem()
    x[:, [3, 9]] = 0
    found = gptq.solve(
        weight,
        x.T @ x,
        scales.minmax(weight, "int4"),
        bits=4,
        group_size=-1,
        damping=0.01,
        act_order="static",
    )
    assert found.dead_columns == 2 and not found.codes[:, [3, 9]].any()


def test_gptq_reports_a_hessian_that_is_never_positive_definite() -> None:
    weight, _ = problem()
    scale = scales.minmax(weight, "int8")
    found = gptq.solve(weight, -torch.eye(64), scale, bits=8, group_size=-1, damping=0.01, act_order="static")
    assert found.damping is None
    assert torch.equal(found.codes, rtn.quantize_weight(weight, scale, "int8"))


def test_gptq_raises_damping_step_by_step() -> None:
    weight, x = problem()
    hessian = x.T @ x
    hessian -= 0.05 * hessian.diagonal().mean() * torch.eye(64)
    found = gptq.solve(
        weight,
        hessian,
        scales.minmax(weight, "int8"),
        bits=8,
        group_size=-1,
        damping=0.01,
        act_order="static",
    )
    assert found.damping == pytest.approx(0.1)


def test_gptq_refuses_what_does_not_fit() -> None:
    weight, x = problem()
    scale = scales.minmax(weight, "int4", 32)
    with pytest.raises(ShapeError):
        gptq.quantize_weight(weight, (x.T @ x)[:32, :32].contiguous(), scale, group_size=32)
    with pytest.raises(ShapeError):
        gptq.quantize_weight(weight, x.T @ x, scale, group_size=60)
    with pytest.raises(UnsupportedError, match="'static' or 'none'"):
        gptq.quantize_weight(weight, x.T @ x, scale, group_size=32, act_order="group")


def test_smooth_scales_are_the_formula() -> None:
    weight, x = problem()
    other = weight.roll(1, 0) * 2
    low, high = x.amin(0), x.amax(0)
    low[5] = high[5] = 0.0
    got = smoothquant.scales(low, high, [weight, other], 0.8)
    largest = torch.maximum(weight.abs().amax(0), other.abs().amax(0)).double()
    expected = (high - low).double() ** 0.8 / (2 * largest) ** 0.2
    expected[5] = 1.0
    # One float32 rounding of the result, and one of the range that is taken in float64 there and in float32
    # here.
    torch.testing.assert_close(got.double(), expected, rtol=3 * 2**-24, atol=0)


def test_fold_gain_tells_what_was_really_folded() -> None:
    gain = torch.tensor([1.0, 3.1, 0.0, 1e-38, 2.0]).to(torch.bfloat16)
    scale = torch.tensor([3.0, 0.7, 4.0, 1e20, 1e-5])
    new, ratio = smoothquant.fold_gain(gain, scale)
    assert torch.equal(new[:2], (gain.float() / scale).to(torch.bfloat16)[:2])
    assert torch.equal((gain.float() * ratio).to(torch.bfloat16), new)
    assert new[2] == 0 and ratio[2] == 1 and new[3] == gain[3] and ratio[3] == 1
