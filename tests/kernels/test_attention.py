# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding against transformers' bits, attention of one token against float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import pennyweight as pw
from pennyweight import _C

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
U = 2.0**-24


@pytest.fixture(params=[i.name for i in pw.implementations()["attention_decode"] if i.why_not is None])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every implementation that the machine has, forced."""
    name: str = request.param
    _C.force(name)
    yield name
    _C.force(None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rotary_has_the_bits_of_transformers(dtype: torch.dtype, implementation: str) -> None:
    torch.manual_seed(0)
    for batch, tokens, heads, d in ((1, 1, 4, 64), (2, 3, 5, 128), (3, 1, 1, 6), (1, 2, 3, 80)):
        x = torch.randn(batch, tokens, heads * d).to(dtype)
        angle = torch.rand(batch, tokens, d // 2).mul(6.3).repeat(1, 1, 2)
        cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
        by_head = x.view(batch, tokens, heads, d).transpose(1, 2)
        want = apply_rotary_pos_emb(by_head, by_head, cos, sin)[0]
        got = pw.ops.rotary(x, cos, sin)
        assert _C.last_run("rotary") == implementation
        assert torch.equal(got.view(batch, tokens, heads, d).transpose(1, 2), want)


def exact_and_bound(
    q: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention in float64, and how far float32 may be off.

    A score is a dot product of d terms in 16 lanes, each of d / 16 roundings and 4 more, times the scale; its exponent
    loses another rounding of s - max and 2 ulp of exp. That is a relative error e of each weight; sum and products of T
    terms add T roundings each, the division one, and the result is rounded once more.
    """
    d, t, dtype = keys.shape[-1], keys.shape[2], q.dtype
    groups = q.shape[-1] // d // keys.shape[1]
    q64 = q.double().view(q.shape[0], -1, 1, d)
    k64, v64 = (x.double().repeat_interleave(groups, 1) for x in (keys, values))
    scores = (q64 @ k64.transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    most = scores.amax(-1, keepdim=True)
    weights = torch.softmax(scores, -1)
    dots = (q64.abs() @ k64.abs().transpose(-1, -2)) * scale
    apart = torch.where(scores.isfinite(), (most - scores).abs(), 0)
    e = ((d / 16 + 6) * U * (dots + dots.amax(-1, keepdim=True)) + U * apart + 6 * U).amax(-1, keepdim=True)
    exact = weights @ v64
    bound = (2 * e + (2 * t + 4) * U) * 1.01 * (weights @ v64.abs())
    bound += (exact.abs() + bound) * torch.finfo(dtype).eps / 2 + torch.finfo(dtype).smallest_normal
    return exact.view(q.shape), bound.view(q.shape)


SHAPES = [(1, 8, 2, 64, 130), (2, 4, 4, 16, 1), (3, 6, 1, 128, 17), (1, 7, 7, 5, 33), (1, 10, 2, 40, 512)]


@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_is_as_near_as_float32_allows(
    dtype: torch.dtype, masked: bool, implementation: str
) -> None:
    torch.manual_seed(0)
    for batch, heads, kv_heads, d, t in SHAPES:
        q = torch.randn(batch, heads * d).mul(2).to(dtype)
        keys, values = (torch.randn(batch, kv_heads, t, d).to(dtype) for _ in range(2))
        mask = torch.rand(batch, t) < 0.5 if masked else None
        if mask is not None:
            mask[:, -1] = True
        got = pw.ops.attention_decode(q, keys, values, d**-0.5, mask)
        assert _C.last_run("attention_decode") == implementation
        exact, bound = exact_and_bound(q, keys, values, d**-0.5, mask)
        worst = ((got.double() - exact).abs() / bound).max()
        assert got.dtype == dtype and float(worst) <= 1, f"{worst:.3g} times the bound at T = {t}, D = {d}"


def test_attention_survives_large_scores(implementation: str) -> None:
    q = torch.full((1, 32), 100.0)
    keys, values = torch.ones(1, 1, 20, 32), torch.arange(20.0).view(1, 1, 20, 1).expand(1, 1, 20, 32)
    keys = keys * torch.linspace(-10, 10, 20).view(1, 1, 20, 1)  # scores from -32000 to 32000
    assert torch.equal(pw.ops.attention_decode(q, keys, values, 1.0), torch.full((1, 32), 19.0))


def test_masked_keys_do_not_count_whatever_they_hold(implementation: str) -> None:
    torch.manual_seed(0)
    q, keys, values = torch.randn(2, 64), torch.randn(2, 2, 21, 32), torch.randn(2, 2, 21, 32)
    mask = torch.ones(2, 21, dtype=torch.bool)
    mask[0, :7] = False
    keys[0, :, :7], values[0, :, :7] = torch.nan, torch.inf
    got = pw.ops.attention_decode(q, keys, values, 0.2, mask)
    assert torch.equal(got[1], pw.ops.attention_decode(q[1:], keys[1:], values[1:], 0.2)[0])
    exact, bound = exact_and_bound(q[:1], keys[:1, :, 7:], values[:1, :, 7:], 0.2, None)
    assert ((got[:1].double() - exact).abs() <= bound).all()


def test_nan_stays_in_its_sequence_and_key_head(implementation: str) -> None:
    torch.manual_seed(0)
    q, keys, values = torch.randn(2, 4 * 16), torch.randn(2, 2, 9, 16), torch.randn(2, 2, 9, 16)
    want = pw.ops.attention_decode(q, keys, values, 0.25)
    keys[1, 0, 3, 5] = torch.nan
    got = pw.ops.attention_decode(q, keys, values, 0.25)
    assert got[1, :32].isnan().all()
    assert torch.equal(got[0], want[0]) and torch.equal(got[1, 32:], want[1, 32:])
