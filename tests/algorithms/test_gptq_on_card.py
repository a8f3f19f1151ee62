# SPDX-License-Identifier: Apache-2.0
"""GPTQ as cards solve it (ops/gptq_on_card.py), on tensors of the CPU, against the CPU's own solve.

Near-ties fall differently where sums run in another order, and one changed code moves those after it in its row; so
codes agree almost everywhere, and the objective, which GPTQ minimizes, to a thousandth.
"""

from __future__ import annotations

import pytest
import torch

from pennyweight import ops, reference
from pennyweight.algorithms import gptq, scales
from pennyweight.errors import ShapeError, UnsupportedError
from pennyweight.ops import gptq_on_card


def problem(
    n: int, k: int, dead: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the Hessian of correlated activations, loud in some channels; NaN above its diagonal."""
    g = torch.Generator().manual_seed(n * k)
    mix = torch.eye(k) + torch.randn(k, k, generator=g) * 0.5 / k**0.5
    x = (torch.randn(3 * k, k, generator=g) @ mix) * torch.randn(k, generator=g).exp()
    x[:, list(dead)] = 0
    hessian = x.T @ x + torch.full((k, k), torch.nan).triu(1)
    return (torch.randn(n, k, generator=g) * 0.02).to(dtype), hessian


def energy(v: torch.Tensor, hessian: torch.Tensor) -> float:
    whole = (hessian.tril() + hessian.tril(-1).T).double()
    return float(((v.double() @ whole) * v.double()).sum())


CASES = [
    pytest.param(1, 32, 32, 4, (), id="n=1-k=32-g=32-int4"),
    pytest.param(1, 1, -1, 8, (), id="n=1-k=1-channel-int8"),
    pytest.param(40, 96, 32, 4, (3, 50), id="n=40-k=96-g=32-int4-dead"),
    pytest.param(65, 128, 64, 8, (), id="n=65-k=128-g=64-int8"),
    pytest.param(33, 300, -1, 4, (0, 299), id="n=33-k=300-channel-int4-dead"),
    pytest.param(70, 201, -1, 8, (), id="n=70-k=201-channel-int8"),
    pytest.param(520, 256, 128, 4, (7,), id="n=520-k=256-g=128-int4-dead"),
    pytest.param(17, 129, 43, 4, (), id="n=17-k=129-g=43-int4"),
]


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("n", "k", "group", "bits", "dead"), CASES)
def test_gptq_on_card_is_the_cpus(
    n: int, k: int, group: int, bits: int, dead: tuple[int, ...], act_order: bool
) -> None:
    weight, hessian = problem(n, k, dead, torch.bfloat16 if n % 2 else torch.float32)
    scale = scales.minmax(weight, f"int{bits}", group)
    args = (weight, hessian, scale, bits, group, 0.01, act_order)
    want, expected = ops.gptq_quantize(*args)
    codes, stats = gptq_on_card.gptq_quantize(*args)
    assert (codes.shape, codes.dtype) == (want.shape, want.dtype)
    assert (codes == want).float().mean() >= 0.999
    kept = weight.float()
    kept[:, list(dead)] = 0
    ours, theirs = (energy(reference.dequantize(c, scale, group) - kept, hessian) for c in (codes, want))
    assert ours <= theirs * (1 + 1e-3)
    assert stats[:2].tolist() == expected[:2].tolist()
    torch.testing.assert_close(stats[2].item(), ours, rtol=1e-3, atol=0)
    torch.testing.assert_close(stats[3:], expected[3:], rtol=1e-3, atol=0)
    assert not codes[:, list(dead)].any()


def test_layers_side_by_side_are_each_by_itself() -> None:
    layers = [problem(20, 200), problem(20, 200, (5,)), problem(20, 200)]
    layers[2] = (layers[2][0], -torch.eye(200))
    weight = torch.stack([w for w, _ in layers])
    hessian = torch.stack([h for _, h in layers])
    scale = torch.stack([scales.minmax(w, "int4", 50) for w, _ in layers])
    codes, stats = gptq_on_card.gptq_quantize_layers(weight, hessian, scale, 4, 50, 0.01, True)
    assert stats[:, 0].tolist() == [0.01, 0.01, -1.0] and stats[:, 1].tolist() == [0, 1, 0]
    for i in range(3):
        one, of_one = gptq_on_card.gptq_quantize(weight[i], hessian[i], scale[i], 4, 50, 0.01, True)
        assert (codes[i] == one).float().mean() >= 0.999
        torch.testing.assert_close(stats[i], of_one, rtol=1e-3, atol=0)


def test_damping_is_raised_tenfold() -> None:
    weight, _ = problem(9, 64)
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(1))
    hessian = x.T @ x
    values, vectors = torch.linalg.eigh(hessian.double())
    values[0] = -0.03 * hessian.diagonal().mean()
    hessian = ((vectors * values) @ vectors.T).float()
    args = (weight, hessian, scales.minmax(weight, "int8"), 8, -1, 0.01, False)
    assert gptq_on_card.gptq_quantize(*args)[1][0] == ops.gptq_quantize(*args)[1][0] == 0.1


def test_a_hessian_that_is_never_positive_definite_gives_rounding() -> None:
    weight, hessian = problem(30, 200, (11,))
    scale = scales.minmax(weight, "int4", 50)
    args = (weight, -hessian, scale, 4, 50, 0.01, False)
    (codes, stats), (want, expected) = gptq_on_card.gptq_quantize(*args), ops.gptq_quantize(*args)
    assert torch.equal(codes, want) and stats[0] == expected[0] == -1.0
    torch.testing.assert_close(stats[2:], expected[2:], rtol=1e-4, atol=0)


def test_torch_is_left_as_it_was_told() -> None:
    weight, hessian = problem(2, 8)
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        gptq_on_card.gptq_quantize(weight, hessian, scales.minmax(weight, "int4"), 4, -1, 0.01, True)
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_arguments_that_do_not_fit_are_refused() -> None:
    weight, hessian = problem(3, 64)
    scale = scales.minmax(weight, "int4", 32)
    good = {"weight": weight, "hessian": hessian, "scale": scale}
    sizes = {"bits": 4, "group_size": 32, "damping": 0.01, "act_order": True}
    for change, words in (
        ({"hessian": hessian[:32]}, r"hessian must be \[64, 64\]"),
        ({"hessian": hessian.double()}, "hessian must be float32; got hessian: .* float64 cpu"),
        ({"scale": scale[:, :1]}, r"scale must be \[3, 2\]"),
        ({"weight": weight[0]}, "weight must have two dimensions"),
        ({"weight": weight.int()}, "weight must be float32, float16 or bfloat16"),
        ({"scale": scale.to("meta")}, "all tensors must be on cpu"),
        ({"group_size": 60}, "K must be a multiple of group_size; got K=64, group_size=60"),
        ({"damping": -1.0}, "damping must be finite"),
    ):
        with pytest.raises(ShapeError, match=words):
            gptq_on_card.gptq_quantize(**(good | sizes | change))
    with pytest.raises(UnsupportedError, match="bits must be 8 or 4; got 3"):
        gptq_on_card.gptq_quantize(**(good | sizes | {"bits": 3}))


def test_solve_layers_on_the_cpu_is_solve() -> None:
    layers = [problem(5, 64), problem(7, 32)]
    found = [scales.minmax(w, "int4", 32) for w, _ in layers]
    options = {"bits": 4, "group_size": 32, "damping": 0.01, "act_order": "static"}
    weights, hessians = zip(*layers, strict=True)
    for one, (weight, hessian), scale in zip(
        gptq.solve_layers(weights, hessians, found, **options), layers, found, strict=True
    ):
        assert torch.equal(one.codes, gptq.solve(weight, hessian, scale, **options).codes)
