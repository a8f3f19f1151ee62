# SPDX-License-Identifier: Apache-2.0
"""Any leading dimensions and any strides give the bits of the contiguous tensor, and read nothing between rows."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_reference import assert_same_bits, reference
from torch import Tensor

import pennyweight as pw

DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
FAST = settings(max_examples=40, deadline=None)


@st.composite
def strided(draw: st.DrawFn, k: int) -> Tensor:
    """(..., k) cut out of a larger tensor full of NaN, its dimensions permuted in memory."""
    lead = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(DTYPES)
    order = draw(st.permutations(range(len(lead) + 1)))
    pad = draw(st.lists(st.integers(0, 3), min_size=len(order), max_size=len(order)))
    shape = [*lead, k]
    base = torch.full([shape[d] + pad[d] for d in order], float("nan")).to(dtype)
    view = base.permute([order.index(d) for d in range(len(order))])
    view = view[tuple(slice(0, size) for size in shape)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return view.copy_(torch.randn(shape, generator=generator))


@FAST
@given(data=st.data(), k=st.integers(1, 140))
def test_quantize_takes_any_strides(data: st.DataObject, k: int) -> None:
    x = data.draw(strided(k))
    for op in ("quantize_per_token_int8", "quantize_per_token_fp8"):
        for got, want in zip(getattr(pw.ops, op)(x), reference(op, x), strict=True):
            assert_same_bits(got, want, op)


@FAST
@given(data=st.data(), k=st.integers(1, 70))
def test_silu_mul_takes_any_strides(data: st.DataObject, k: int) -> None:
    x = data.draw(strided(2 * k))
    for got, want in zip(
        pw.ops.silu_mul_quantize_int8(x), reference("silu_mul_quantize_int8", x), strict=True
    ):
        assert_same_bits(got, want)


@FAST
@given(data=st.data(), k=st.integers(1, 140))
def test_rms_norm_takes_any_strides(data: st.DataObject, k: int) -> None:
    x = data.draw(strided(k))
    weight = torch.linspace(0.5, 2, k).to(x.dtype)
    residual = data.draw(st.sampled_from([None, x.flip(0) if x.dim() > 1 else x]))
    args = (x, weight, 1e-5, residual)
    want = reference("rms_norm_quantize_int8", *args)
    for g, w in zip(pw.ops.rms_norm_quantize_int8(*args), want, strict=True):
        assert_same_bits(g, w)


@FAST
@given(data=st.data(), k=st.integers(1, 140), n=st.integers(1, 130))
def test_linear_int8_takes_any_strides(data: st.DataObject, k: int, n: int) -> None:
    x = data.draw(strided(k))
    generator = torch.Generator().manual_seed(n)
    codes = torch.randint(-128, 128, (n, k), dtype=torch.int8, generator=generator)
    args = (x, pw.ops.pack_int8(codes), torch.rand(n, generator=generator))
    assert_same_bits(pw.ops.linear_w8a8_int8(*args), reference("linear_w8a8_int8", *args)[0])


@FAST
@given(data=st.data(), n=st.integers(1, 130), k=st.sampled_from([32, 64, 96, 128, 33]))
def test_linear_w4a16_takes_any_strides(data: st.DataObject, n: int, k: int) -> None:
    x = data.draw(strided(k))
    group = -1 if k % 32 else 32
    codes = torch.randint(-8, 8, (n, k), dtype=torch.int8, generator=torch.Generator().manual_seed(n))
    scale = torch.full((n, 1 if group == -1 else k // group), 0.125)
    args = (pw.ops.pack_int4(codes, scale, None, "bf16"), n, group, "bf16", False)
    dense = x.clone(memory_format=torch.contiguous_format)
    assert_same_bits(pw.ops.linear_w4a16(x, *args), pw.ops.linear_w4a16(dense, *args))


def test_ops_take_strided_weights_scales_and_codes() -> None:
    codes = torch.randint(-128, 128, (200, 70), dtype=torch.int8).T
    packed = pw.ops.pack_int8(codes)
    assert_same_bits(packed, pw.ops.pack_int8(codes.contiguous()))
    x, scale = torch.randn(3, 200), torch.rand(140)[::2]
    assert_same_bits(
        pw.ops.linear_w8a8_int8(x, packed, scale), pw.ops.linear_w8a8_int8(x, packed, scale.contiguous())
    )
    weight, h = torch.randn(200, 9).T, torch.zeros(9, 9)
    assert_same_bits(pw.ops.column_abs_max(weight), weight.abs().amax(0))
    pw.ops.hessian_accumulate(h, weight.T)  # (200, 9), contiguous again
    want = torch.zeros(9, 9)
    pw.ops.hessian_accumulate(want, weight.T.contiguous())
    assert_same_bits(h, want)
