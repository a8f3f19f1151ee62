# SPDX-License-Identifier: Apache-2.0
"""Packing and calibration on a card: the CPU's results, and the orders of summation that are promised."""

import pytest
import torch

from pennyweight import _C, ops
from pennyweight.algorithms import gptq, scales

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available() or not _C.cuda()["built"], reason="needs a card, and a build with CUDA"
    ),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def test_codes_of_8_bits_go_to_rows_and_back() -> None:
    for kind, dtype in (("int8", torch.int8), ("fp8", torch.uint8)):
        for n, k in ((4096, 4096), (257, 1031), (1, 1)):
            codes = torch.randint(-128 if kind == "int8" else 0, 120, (n, k), dtype=dtype)
            scale = torch.rand(n, 1)
            packed = getattr(ops, f"pack_{kind}")(codes.cuda())
            assert packed.numel() == n * (-(-k // 16) * 16)
            assert torch.equal(getattr(ops, f"unpack_{kind}")(packed, n, k).cpu(), codes)
            floats = getattr(ops, f"dequantize_{kind}")(packed, scale.cuda(), n, k)
            here = getattr(ops, f"dequantize_{kind}")(getattr(ops, f"pack_{kind}")(codes), scale, n, k)
            assert torch.equal(floats.cpu(), here)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("group", [32, 128, -1])
def test_panels_of_4_bits_are_the_cpus(group: int, zero_points: bool) -> None:
    n, k = 1000, 4096
    groups = 1 if group == -1 else k // group
    codes, zeros = (torch.randint(-8, 8, (n, c), dtype=torch.int8) for c in (k, groups))
    scale = (torch.rand(n, groups) * 0.02 + 0.001).bfloat16().float()
    args = (codes, scale, zeros if zero_points else None, "bf16")
    packed = ops.pack_int4(*(a.cuda() if isinstance(a, torch.Tensor) else a for a in args))
    assert torch.equal(packed.cpu(), ops.pack_int4(*args))
    form = (n, k, group, "bf16", zero_points)
    assert torch.equal(ops.dequantize_int4(packed, *form).cpu(), ops.dequantize_int4(packed.cpu(), *form))
    for got, want in zip(ops.unpack_int4(packed, *form), ops.unpack_int4(packed.cpu(), *form), strict=True):
        assert torch.equal(got.cpu(), want)
    words = ops.pack_nibbles(codes.cuda())
    assert torch.equal(words.cpu(), ops.pack_nibbles(codes))
    assert torch.equal(ops.unpack_nibbles(words, k).cpu(), codes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("t", "k"), [(300, 200), (1000, 129), (40000, 512), (2048, 4096)])
def test_hessians_are_sums_of_products(t: int, k: int, dtype: torch.dtype) -> None:
    x = torch.randn(t, k, device="cuda").to(dtype)
    h = torch.full((k, k), 7.0, device="cuda")
    ops.hessian_accumulate(h, x)
    again = torch.full((k, k), 7.0, device="cuda")
    ops.hessian_accumulate(again, x)
    assert torch.equal(h, again), "the order of summation is not fixed"
    wide = x.double()
    want, magnitude = wide.T @ wide + 7, wide.abs().T @ wide.abs() + 7
    # six passes at most, of runs of 16384 tokens: 16 products are added at once, with truncation
    bound = (6 * min(t, 16384) / 16 + t / 4096 + 20) * 2**-23 * magnitude + 2**-25 * magnitude
    lower = torch.ones(k, k, dtype=torch.bool, device="cuda").tril()
    assert ((h - want).abs() <= bound)[lower].all()
    assert (h[~lower] == 7).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("kind", "group"), [("int8", -1), ("int4", 128), ("fp8", -1)])
def test_scales_and_codes_are_the_cpus(kind: str, group: int, dtype: torch.dtype) -> None:
    weight = (torch.randn(300, 1024) * 0.02).to(dtype)
    least = scales.minmax(weight, kind, group)
    assert torch.equal(scales.minmax(weight.cuda(), kind, group).cpu(), least)
    assert (
        scales.mse(weight.cuda(), kind, group).cpu() == scales.mse(weight, kind, group)
    ).float().mean() > 0.99
    codes = ops.quantize_weight(weight.cuda(), least.cuda(), group, kind)
    assert torch.equal(codes.cpu(), ops.quantize_weight(weight, least, group, kind))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_columns_are_the_cpus(dtype: torch.dtype) -> None:
    x = torch.randn(5000, 777).to(dtype)
    low, high = torch.full((777,), torch.inf), torch.full((777,), -torch.inf)
    on_card = low.cuda(), high.cuda()
    ops.column_range(x, low, high)
    ops.column_range(x.cuda(), *on_card)
    assert torch.equal(on_card[0].cpu(), low) and torch.equal(on_card[1].cpu(), high)
    most = ops.column_abs_max(x)
    assert torch.equal(ops.column_abs_max(x.cuda()).cpu(), most)
    got = ops.smooth_scales(*on_card, most.cuda(), 0.8).cpu()
    torch.testing.assert_close(got, ops.smooth_scales(low, high, most, 0.8), rtol=2**-23, atol=0)


@pytest.mark.parametrize("act_order", ["static", "none"])
@pytest.mark.parametrize(
    ("n", "k", "group", "bits"), [(300, 1024, 128, 4), (65, 777, -1, 8), (17, 130, 65, 4)]
)
def test_gptq_is_the_cpus(n: int, k: int, group: int, bits: int, act_order: str) -> None:
    x = torch.randn(3 * k, k) @ (torch.eye(k) + torch.randn(k, k) * 0.5 / k**0.5)
    x[:, 5] = 0
    weight, hessian = torch.randn(n, k) * 0.02, x.T @ x
    scale = scales.minmax(weight, f"int{bits}", group)
    options = {"bits": bits, "group_size": group, "damping": 0.01, "act_order": act_order}
    want = gptq.solve(weight, hessian, scale, **options)
    found = gptq.solve(weight.cuda(), hessian.cuda(), scale.cuda(), **options)
    assert _C.last_cuda_run("gptq_columns") == "sm80"
    assert (found.codes.cpu() == want.codes).float().mean() >= 0.999
    assert (found.damping, found.dead_columns) == (want.damping, 1)
    assert found.output_error <= want.output_error * (1 + 1e-3)
    layers = [[t.cuda()] * 3 for t in (weight, hessian, scale)]
    for one in gptq.solve_layers(*layers, **options):
        assert (one.codes == found.codes).float().mean() >= 0.999
