# SPDX-License-Identifier: Apache-2.0
"""decode_front and decode_back give the bits of the ops that they run one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops_reference import assert_same_bits, forced, runnable
from torch import Tensor

import pennyweight as pw
from pennyweight import _C, ops

B, H, HEADS, KV, D = 3, 128, 6, 2, 32
SCHEMES = ("int8", "fp8", "int4")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
Operands = tuple[Any, ...]


def layer(scheme: str, n: int, k: int, dtype: torch.dtype, bias: bool, fill: slice | None = None) -> Operands:
    """A layer of random weights, `fill` of its outputs 0; INT4 has zero points where there is a bias."""
    added = torch.randn(n).to(dtype) if bias else None
    codes = torch.randint(-8, 8, (n, k), dtype=torch.int8)
    zeros = torch.randint(-8, 8, (n, k // 32), dtype=torch.int8) if bias else None
    if scheme != "int4":
        codes = torch.randn(n, k).to(torch.float8_e4m3fn).view(torch.uint8)
    if fill is not None:
        for tensor in (codes, zeros, added):
            if tensor is not None:
                tensor.view(2, n // 2, -1)[:, fill] = 0
    if scheme == "int4":
        scale = (torch.rand(n, k // 32) * 0.02).half().float()
        packed = ops.pack_int4(codes, scale, zeros, "f16")
        return scheme, packed, None, "f16", [n, 32, int(bias)], added
    packed = ops.pack_fp8(codes) if scheme == "fp8" else ops.pack_int8(codes.view(torch.int8))
    return scheme, packed, torch.rand(n) * 0.02, "", [n, -1, 0], added


def run(operands: Operands, rows: Tensor) -> Tensor:
    """A layer by its own op, which quantizes what it is given."""
    scheme, packed, scale, scale_dtype, (n, group_size, zero_points), bias = operands
    if scheme == "int4":
        return ops.linear_w4a16(rows, packed, n, group_size, scale_dtype, bool(zero_points), bias)
    return {"int8": ops.linear_w8a8_int8, "fp8": ops.linear_w8a8_fp8}[scheme](rows, packed, scale, bias)


def front(x: Tensor, weight: Tensor, qkv: Operands, where: tuple[Tensor, Tensor], v: int) -> Any:
    joint = run(qkv, ops.rms_norm(x, weight, 1e-5)[0])
    q_end = HEADS * D
    turned, cached = ops.rotary(joint[..., : q_end + KV * D], *where), (len(x), KV, 1, D)
    return turned[..., :q_end], turned[..., q_end:].view(cached), joint[..., v : v + KV * D].view(cached)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("scheme", "dtype", "bias"), [*itertools.product(SCHEMES, DTYPES, (False, True))])
@pytest.mark.parametrize("rows", [1, B])
def test_front_is_norm_layer_and_rotation(scheme: str, dtype: torch.dtype, bias: bool, rows: int) -> None:
    begin = (HEADS + KV) * D + 64  # a gap after the keys, and one after the values
    x, weight = torch.randn(rows, 1, H).to(dtype), torch.randn(H).to(dtype)
    qkv = layer(scheme, begin + KV * D + 64, H, dtype, bias)
    for count in {1, rows}:  # one position for all, or one each
        where = torch.randn(count, 1, D).to(dtype), torch.randn(1, 1, D).to(dtype)
        got = ops.decode_front(x, weight, 1e-5, *qkv, *where, HEADS, KV, begin)
        for i, (g, w) in enumerate(zip(got, front(x, weight, qkv, where, begin), strict=True)):
            assert_same_bits(g, w.contiguous(), f"output {i}")
            assert g.is_contiguous()


def back(*args: Any, eps: float, size: int) -> tuple[Tensor, Tensor]:
    q, keys, values, mask, x, o, weight, gate_up, down = args
    attended = run(o, ops.attention_decode(q, keys, values, 0.2, mask))
    normed, hidden = ops.rms_norm(attended, weight, eps, x)
    return hidden, run(down, ops.silu_mul(run(gate_up, normed))[..., :size])


@pytest.mark.parametrize("schemes", [*itertools.product(SCHEMES, SCHEMES)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, B])
def test_back_is_attention_and_mlp(schemes: tuple[str, str], dtype: torch.dtype, rows: int) -> None:
    (first, last), size, half = schemes, 96, 128  # of a half, 32 columns fill up, and are 0
    q, x = torch.randn(rows, 1, HEADS * D).to(dtype), torch.randn(rows, 1, H).to(dtype)
    keys, values = torch.randn(2, rows, KV, 11, D).to(dtype)
    bias = rows > 1
    o = layer(last, H, HEADS * D, dtype, bias)
    gate_up = layer(first, 2 * half, H, dtype, bias, fill=slice(size, None))
    down = layer(last, H, size, dtype, bias)
    weight = torch.randn(H).to(dtype)
    masks = [None, torch.arange(11).expand(rows, 11) > 3]
    for mask in masks:
        got = ops.decode_back(q, keys, values, 0.2, mask, x, *o, weight, 1e-5, *gate_up, size, *down)
        want = back(q, keys, values, mask, x, o, weight, gate_up, down, eps=1e-5, size=size)
        for g, w, name in zip(got, want, ("hidden", "y"), strict=True):
            assert g.isfinite().all()
            assert_same_bits(g, w, name)


@pytest.mark.parametrize("op", ["decode_front", "decode_back"])
def test_same_bits_on_one_and_two_threads_and_any_implementation_runs(op: str) -> None:
    threads = torch.get_num_threads()
    for args, kwargs in pw.testing.sample_inputs(op):
        for name in runnable("rms_norm"):
            outs = []
            try:
                for count in (1, 2):
                    torch.set_num_threads(count)
                    with forced(name):
                        outs.append(getattr(ops, op)(*args, **kwargs))
            finally:
                torch.set_num_threads(threads)
            for one, two in zip(*outs, strict=True):
                assert_same_bits(two, one, f"{op} {name} with two threads")


def test_what_runs_inside_is_counted() -> None:
    args, _ = pw.testing.sample_inputs("decode_back")[0]
    own = ("linear_w8a8_int8", "rms_norm_quantize_int8", "gemm_w8a8_int8", "silu_mul_quantize_int8")
    names = ("attention_decode", *own)
    before = [sum(_C.run_counts(name).values()) for name in names]
    ops.decode_back(*args)
    after = [sum(_C.run_counts(name).values()) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1, 2, 1]


def changed(op: str, index: int, value: Callable[[Any], Any]) -> Callable[[], Any]:
    """A call of the first sample with one argument changed."""

    def call() -> Any:
        args = list(pw.testing.sample_inputs(op)[0][0])
        args[index] = value(args[index])
        return getattr(ops, op)(*args)

    return call


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "norm": (changed("decode_front", 1, lambda w: w[1:]), pw.ShapeError, "norm_weight must have 64 elements"),
    "scheme": (changed("decode_front", 3, lambda _: "int2"), pw.UnsupportedError, "scheme must be .*got 'int2'"),
    "weight": (changed("decode_front", 4, lambda w: w[:-1]), pw.ShapeError, "weight must be the 16384 bytes"),
    "no-scale": (changed("decode_front", 5, lambda _: None), pw.ShapeError, "weight: .*need col_scale.*got 'int8' and"),
    "form": (changed("decode_front", 7, lambda f: f[:2]), pw.ShapeError, r"its form must be N.*got \[240, -1\]"),
    "bias": (changed("decode_front", 8, lambda b: b.half()), pw.ShapeError, "bias must be float32"),
    "positions": (changed("decode_front", 9, lambda c: c[:2]), pw.ShapeError, r"cos must have one row, or as many"),
    "sine": (changed("decode_front", 10, lambda s: s[..., 1:]), pw.ShapeError, r"D even.*sin: \[1, 1, 23\]"),
    "heads": (changed("decode_front", 11, lambda _: 7), pw.ShapeError, "N=240, heads=7, kv_heads=2, values_begin=192"),
    "values": (changed("decode_front", 13, lambda _: 193), pw.ShapeError, "N=240, heads=4.*values_begin=193"),
    "before": (changed("decode_front", 13, lambda _: 143), pw.ShapeError, "values_begin=143"),
    "keys": (changed("decode_back", 1, lambda k: k[:2]), pw.ShapeError, r"got q: \[3, 1, 96\].*keys: \[2, 2, 9, 24\]"),
    "rows": (changed("decode_back", 5, lambda x: x[:2]), pw.ShapeError, r"q's rows and dtype.*residual: \[2, 1, 64\]"),
    "dtype": (changed("decode_back", 5, lambda x: x.half()), pw.ShapeError, r"residual: \[3, 1, 64\] float16"),
    "int4-scale": (changed("decode_back", 6, lambda _: "int4"), pw.ShapeError, "o_weight: .*got 'int4' and col"),
    "empty": (changed("decode_back", 20, lambda _: 0), pw.ShapeError, "down_weight must be the 0 bytes"),
    "half": (changed("decode_back", 20, lambda _: 129), pw.ShapeError, "down_weight must be the .*K=129"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_say_what_is_wrong(case: str) -> None:
    call, kind, text = WRONG[case]
    with pytest.raises(kind, match=text):
        call()
