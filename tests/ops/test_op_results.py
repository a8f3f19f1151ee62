# SPDX-License-Identifier: Apache-2.0
"""Every operator on every implementation that this machine runs, against the plain loops called without torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from float_bounds import assert_within, exact_and_bound
from ops_reference import FLOAT_SUMS, assert_same_bits, forced, reference, runnable
from torch import Tensor

import pennyweight as pw
from pennyweight import _C

EVERY = [(op, name) for op in _C.ops() for name in runnable(op)]
IN_PLACE = {"hessian_accumulate": (0,), "column_range": (1, 2), "gptq_columns": (4, 5, 6)}


def call(op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """The operator's outputs as a tuple, for the ones in place too; arguments stay as they were."""
    args = copy.deepcopy(args)
    out = getattr(pw.ops, op)(*args, **kwargs)
    if out is None:
        return tuple(args[i] for i in IN_PLACE[op])
    return out if isinstance(out, tuple) else (out,)


def run_proved(op: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """Runs one implementation, and proves that it and nothing else ran; without rows nothing runs."""
    before = _C.run_counts(op)
    with forced(name):
        out = call(op, args, kwargs)
    ran = {key: count - before[key] for key, count in _C.run_counts(op).items()}
    assert ran == {key: int(key == name and args[0].numel() > 0) for key in before}
    return out


def check(op: str, name: str, got: tuple[Tensor, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    what = f"{op} {name}"
    if op == "gptq_quantize" and name != "reference":
        return  # its codes answer to bounds of their own, in tests/kernels
    if op not in FLOAT_SUMS or name == "reference":
        for i, (g, w) in enumerate(zip(got, reference(op, *args, **kwargs), strict=True)):
            assert_same_bits(g, w, f"{what} output {i}")
        return
    exact, bound = exact_and_bound(op, args, kwargs)
    assert_within(got[0], exact, bound, what)


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_op_matches_reference(op: str, name: str) -> None:
    for args, kwargs in pw.testing.sample_inputs(op):
        check(op, name, run_proved(op, name, args, kwargs), args, kwargs)


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_op_has_same_bits_on_one_and_two_threads(op: str, name: str) -> None:
    threads = torch.get_num_threads()
    try:
        for args, kwargs in pw.testing.sample_inputs(op):
            outs = []
            for count in (1, 2):
                torch.set_num_threads(count)
                outs.append(run_proved(op, name, args, kwargs))
            for one, two in zip(*outs, strict=True):
                assert_same_bits(two, one, f"{op} {name} with two threads")
    finally:
        torch.set_num_threads(threads)


LINEAR = ("linear_w8a8_int8", "linear_w8a8_fp8", "linear_w4a16", "linear_w4a8_int8", "linear_bf16")


def linear_args(
    op: str, m: int, n: int, k: int, dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """x (m, k), a weight (n, k) with one scale per channel where k has no group, bias."""
    torch.manual_seed(m * 1000 + n * 10 + k)
    dtype = torch.bfloat16 if op == "linear_bf16" else dtype
    x, bias = torch.randn(m, k).to(dtype), {"bias": torch.randn(n).to(dtype)}
    if op == "linear_bf16":
        return (x, torch.randn(n, k).to(dtype)), bias
    if "w4" in op:
        group = 32 if k % 32 == 0 else -1
        scale = (torch.rand(n, k // group if group > 0 else 1) + 0.1).bfloat16().float()
        codes = torch.randint(-8, 8, (n, k), dtype=torch.int8)
        return (x, pw.ops.pack_int4(codes, scale, None, "bf16"), n, group, "bf16", False), bias
    if op.endswith("fp8"):
        return (
            x,
            pw.ops.pack_fp8(torch.randn(n, k).to(torch.float8_e4m3fn).view(torch.uint8)),
            torch.rand(n),
        ), bias
    return (x, pw.ops.pack_int8(torch.randint(-128, 128, (n, k), dtype=torch.int8)), torch.rand(n)), bias


@pytest.mark.parametrize("m", [0, 1, 2, 3, 17, 118])
@pytest.mark.parametrize(("op", "name"), [(op, name) for op in LINEAR for name in runnable(op)])
def test_linear_at_awkward_sizes(op: str, name: str, m: int) -> None:
    dtype = (torch.bfloat16, torch.float16, torch.float32)[m % 3]
    for n, k in ((65, 129), (1, 1), (130, 96), (64, 64)):
        args, kwargs = linear_args(op, m, n, k, dtype)
        got = run_proved(op, name, args, kwargs)
        assert got[0].shape == (m, n)
        check(op, name, got, args, kwargs)


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in LINEAR for name in runnable(op)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_linear_keeps_nan_in_its_row(op: str, name: str, bad: float) -> None:
    args, kwargs = linear_args(op, 3, 70, 96, torch.float32)
    with forced(name):
        clean = call(op, args, kwargs)[0]
        args[0][1, 7] = bad
        y = call(op, args, kwargs)[0]
    assert not y[1].isfinite().any()
    assert_same_bits(y[::2], clean[::2], "the other rows")
