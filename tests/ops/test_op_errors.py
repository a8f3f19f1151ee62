# SPDX-License-Identifier: Apache-2.0
"""Wrong calls end in an error of ours that says op, rule and what came, before anything is read or written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops_reference import forced

import pennyweight as pw
from pennyweight import _C, ops

N, K = 70, 96
X = torch.zeros(3, K)
ROWS = torch.zeros(3, K, dtype=torch.int8)
SCALE = torch.ones(N)
INT8 = torch.zeros(128 * K, dtype=torch.uint8)
INT4 = ops.pack_int4(torch.zeros(N, K, dtype=torch.int8), torch.ones(N, K // 32), None, "bf16")
BF16 = torch.zeros(N, K, dtype=torch.bfloat16)
KEYS = torch.zeros(3, 2, 5, 16)
FORM = (N, 32, "bf16", False)

SHAPE: dict[str, tuple[Callable[[], Any], str]] = {
    "x-integer": (
        lambda: ops.quantize_per_token_int8(X.int()),
        r"x must be float32.*got x: \[3, 96\] int32 cpu",
    ),
    "x-double": (lambda: ops.linear_w4a16(X.double(), INT4, *FORM), "x must be float32.*float64"),
    "x-scalar": (lambda: ops.quantize_per_token_fp8(torch.tensor(1.0)), r"x must be \(\.\.\., K\)"),
    "x-no-columns": (lambda: ops.quantize_per_token_fp8(X[:, :0]), r"K of at least 1; got x: \[3, 0\]"),
    "smooth-size": (
        lambda: ops.quantize_per_token_int8(X, SCALE),
        r"smooth must have 96 elements; got smooth: \[70\]",
    ),
    "smooth-dtype": (lambda: ops.quantize_per_token_int8(X, X[0].half()), "smooth must be float32"),
    "norm-dtype": (lambda: ops.rms_norm_quantize_int8(X, X[0].half(), 1e-5), "weight must be float32"),
    "residual-shape": (
        lambda: ops.rms_norm_quantize_fp8(X, X[0], 1e-5, X[:2]),
        r"residual must be \[3, 96\], as x is; got residual: \[2, 96\]",
    ),
    "gate-odd": (lambda: ops.silu_mul_quantize_int8(X[:, :95]), r"gate_up must be \(\.\.\., 2K\)"),
    "codes-dtype": (
        lambda: ops.gemm_w8a8_fp8(ROWS, SCALE[:3], INT8, SCALE, N, None, torch.float32),
        "codes must be uint8.*int8",
    ),
    "row-scale-size": (
        lambda: ops.gemm_w8a8_int8(ROWS, SCALE, INT8, SCALE, N, None, torch.float32),
        r"row_scale must have 3 elements; got row_scale: \[70\]",
    ),
    "scales-missing": (
        lambda: ops.gemm_w8a8_int8(ROWS, None, INT8, SCALE, N, None, torch.float32),
        "needs row_scale and col_scale; got row_scale: None",
    ),
    "int32-with-bias": (
        lambda: ops.gemm_w8a8_int8(ROWS, None, INT8, None, N, SCALE.int(), torch.int32),
        "takes no scales and no bias.*bias: given",
    ),
    "n-zero": (
        lambda: ops.gemm_w8a8_int8(ROWS, None, INT8, None, 0, None, torch.int32),
        "n must be at least 1; got 0",
    ),
    "packed-size": (
        lambda: ops.linear_w8a8_int8(X, INT8[:-1], SCALE),
        r"weight must be the 12288 bytes.*N=70, K=96; got weight: \[12287\] uint8",
    ),
    "packed-dtype": (lambda: ops.linear_w8a8_int8(X, INT8.char(), SCALE), "weight must be uint8"),
    "x-too-wide": (lambda: ops.linear_w8a8_fp8(torch.zeros(3, 100), INT8, SCALE), "12800 bytes.*K=100"),
    "no-outputs": (lambda: ops.linear_w8a8_int8(X, INT8, SCALE[:0]), "must be at least 1; got 0"),
    "bias-dtype": (lambda: ops.linear_w8a8_int8(X, INT8, SCALE, SCALE.half()), "bias must be float32"),
    "bias-size": (lambda: ops.linear_w4a16(X, INT4, *FORM, SCALE[1:]), "bias must have 70 elements"),
    "ragged-groups": (
        lambda: ops.linear_w4a16(X, INT4, N, 64, "bf16", False),
        "K must be a multiple of group_size; got K=96, group_size=64; use group_size=-1",
    ),
    "zero-points-absent": (
        lambda: ops.linear_w4a16(X, INT4, N, 32, "bf16", True),
        r"weight must be the \d+ bytes",
    ),
    "scales-shape": (
        lambda: ops.pack_int4(torch.zeros(N, K, dtype=torch.int8), torch.ones(N - 1, 3), None, "bf16"),
        r"scale must be \[70, 3\]; got scale: \[69, 3\]",
    ),
    "scales-groups": (
        lambda: ops.pack_int4(torch.zeros(N, K, dtype=torch.int8), torch.ones(N, 5), None, "bf16"),
        "K must be a multiple of the number of groups; got K=96, scales for 5 groups",
    ),
    "zeros-shape": (
        lambda: ops.pack_int4(ROWS, torch.ones(3, 3), ROWS, "bf16"),
        r"zeros must be \[3, 3\]; got zeros: \[3, 96\]",
    ),
    "codes-1d": (lambda: ops.pack_int8(ROWS[0]), r"codes must have two dimensions.*got codes: \[96\]"),
    "codes-empty": (lambda: ops.pack_fp8(torch.zeros(0, 4, dtype=torch.uint8)), "neither empty"),
    "unpack-k": (lambda: ops.unpack_int8(INT8, N, 0), "k must be at least 1; got 0"),
    "dequantize-scale": (lambda: ops.dequantize_int8(INT8, SCALE[1:], N, K), "scale must have 70 elements"),
    "nibbles-width": (
        lambda: ops.unpack_nibbles(torch.zeros(3, 2, dtype=torch.int32), 17),
        r"words must be \[3, 3\]; got words: \[3, 2\] int32",
    ),
    "hessian-shape": (
        lambda: ops.hessian_accumulate(torch.zeros(95, 96), X),
        r"h is written in place.*\[96, 96\]",
    ),
    "hessian-strided": (
        lambda: ops.hessian_accumulate(torch.zeros(96, 192)[:, ::2], X),
        r"contiguous; got h: \[96, 96\] float32 cpu with strides \[192, 2\]",
    ),
    "gptq-hessian": (
        lambda: ops.gptq_quantize(X, torch.zeros(95, 95), torch.ones(3, 1), 4, -1, 0.01, True),
        r"hessian must be \[96, 96\]",
    ),
    "gptq-damping": (
        lambda: ops.gptq_quantize(X, torch.eye(96), torch.ones(3, 1), 4, -1, float("nan"), True),
        "damping must be finite and not negative; got nan",
    ),
    "scales-of-groups": (
        lambda: ops.weight_scales(X, "int4", 36, "minmax"),
        "K must be a multiple of group_size",
    ),
    "maxshrink": (
        lambda: ops.weight_scales(X, "int4", 32, "mse", maxshrink=1.0),
        "maxshrink must lie between",
    ),
    "range-length": (lambda: ops.column_range(X, SCALE, X[0]), r"low is written in place and must be \[96\]"),
    "strength": (lambda: ops.smooth_scales(X[0], X[0], X[0], 1.5), r"strength must lie in 0\.\.1; got 1\.5"),
    "bf16-x": (
        lambda: ops.linear_bf16(X, BF16),
        r"x must be bfloat16; got x: \[3, 96\] float32 cpu",
    ),
    "bf16-weight": (lambda: ops.linear_bf16(X.bfloat16(), BF16.half()), "weight must be bfloat16.*float16"),
    "bf16-k": (
        lambda: ops.linear_bf16(X.bfloat16(), BF16[:, 1:]),
        r"must have the same K; got x: \[3, 96\] bfloat16 cpu, weight: \[70, 95\] bfloat16 cpu",
    ),
    "bf16-weight-1d": (lambda: ops.linear_bf16(X.bfloat16(), BF16[0]), "weight must have two dimensions"),
    "bf16-no-outputs": (lambda: ops.linear_bf16(X.bfloat16(), BF16[:0]), "neither empty"),
    "bf16-bias": (
        lambda: ops.linear_bf16(X.bfloat16(), BF16, SCALE[1:].bfloat16()),
        r"bias must have 70 elements; got bias: \[69\]",
    ),
    "rotary-rows": (
        lambda: ops.rotary(X, X[:2], X[:2]),
        r"cos must have one row, or as many as x \(3\); got cos: \[2, 96\]",
    ),
    "rotary-heads": (
        lambda: ops.rotary(X, X[:, :36], X[:, :36]),
        r"x \(\.\.\., heads \* D\); got x: \[3, 96\].*cos: \[3, 36\]",
    ),
    "rotary-odd": (lambda: ops.rotary(X[:, :9], X[:, :3], X[:, :3]), "with D even"),
    "rotary-dtype": (lambda: ops.rotary(X, X.half(), X), "cos must be float32"),
    "attention-batch": (
        lambda: ops.attention_decode(X, KEYS[:2], KEYS[:2], 1.0),
        r"q must be \(B, heads \* D\).*got q: \[3, 96\]",
    ),
    "attention-heads": (
        lambda: ops.attention_decode(X[:, :80], KEYS, KEYS, 1.0),
        r"heads a multiple of kv_heads; got q: \[3, 80\]",
    ),
    "attention-values": (
        lambda: ops.attention_decode(X, KEYS, KEYS[:, :, 1:], 1.0),
        r"values: \[3, 2, 4, 16\]",
    ),
    "attention-empty": (
        lambda: ops.attention_decode(X, KEYS[:, :, :0], KEYS[:, :, :0], 1.0),
        r"keys must be \(B, kv_heads, T, D\), none empty; got keys: \[3, 2, 0, 16\]",
    ),
    "attention-3d": (
        lambda: ops.attention_decode(X, KEYS[0], KEYS[0], 1.0),
        r"must be \(B, kv_heads, T, D\)",
    ),
    "attention-dtype": (lambda: ops.attention_decode(X, KEYS.half(), KEYS, 1.0), "keys must be float32"),
    "attention-mask": (
        lambda: ops.attention_decode(X, KEYS, KEYS, 1.0, torch.ones(3, 4) > 0),
        r"mask must be \(B, T\) as keys are, 3 by 5; got mask: \[3, 4\]",
    ),
    "attention-mask-dtype": (
        lambda: ops.attention_decode(X, KEYS, KEYS, 1.0, torch.ones(3, 5)),
        "mask must be bool",
    ),
    "other-device": (
        lambda: ops.linear_w8a8_int8(X, INT8.to("meta"), SCALE),
        "all tensors must be on one device; got cpu, meta",
    ),
}

UNSUPPORTED: dict[str, tuple[Callable[[], Any], str]] = {
    "group-48": (
        lambda: ops.linear_w4a16(X, INT4, N, 48, "bf16", False),
        "must be 32, 64, 128, or -1.*group_size=48",
    ),
    "scale-dtype": (
        lambda: ops.linear_w4a16(X, INT4, N, 32, "fp8", False),
        "scale_dtype must be .*got 'fp8'",
    ),
    "out-dtype": (
        lambda: ops.gemm_w8a8_int8(ROWS, SCALE[:3], INT8, SCALE, N, None, torch.float64),
        "out_dtype must be .*got float64",
    ),
    "int32-of-fp8": (
        lambda: ops.gemm_w8a8_fp8(ROWS.view(torch.uint8), SCALE[:3], INT8, SCALE, N, None, torch.int32),
        "out_dtype must be float32, float16 or bfloat16; got int32",
    ),
    "bits": (
        lambda: ops.gptq_quantize(X, torch.eye(96), torch.ones(3, 1), 3, -1, 0.01, True),
        "bits must be 8 or 4",
    ),
    "sparse": (
        lambda: ops.column_abs_max(X.to_sparse()),
        "column_abs_max: kernels run on dense CPU .*cpu sparse_coo",
    ),
    "scheme": (lambda: ops.weight_scales(X, "int5", -1, "minmax"), "scheme must be .*got 'int5'"),
    "observer": (lambda: ops.weight_scales(X, "int4", -1, "max"), "observer must be .*got 'max'"),
}


@pytest.mark.parametrize("case", SHAPE)
def test_op_refuses_what_does_not_fit(case: str) -> None:
    call, text = SHAPE[case]
    with pytest.raises(pw.ShapeError, match=text):
        call()


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_op_refuses_what_nothing_can_do(case: str) -> None:
    call, text = UNSUPPORTED[case]
    with pytest.raises(pw.UnsupportedError, match=text):
        call()


def test_errors_start_with_the_op_and_carry_no_tag() -> None:
    with pytest.raises(pw.ShapeError) as caught:
        ops.pack_int8(X)
    assert str(caught.value).startswith("pack_int8: codes must be int8; got codes: [3, 96] float32 cpu")
    assert "[pw:" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_op_without_rows_runs_nothing_and_gives_the_right_shape() -> None:
    before = _C.run_counts("linear_w8a8_int8")
    assert ops.linear_w8a8_int8(torch.zeros(2, 0, K), INT8, SCALE).shape == (2, 0, N)
    assert _C.run_counts("linear_w8a8_int8") == before
    h = torch.ones(K, K)
    ops.hessian_accumulate(h, X[:0])
    assert (h == 1).all()


def test_forcing_an_unknown_implementation_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match="no implementation is called 'sse9'; use one of reference"):
        _C.force("sse9")


def test_forcing_takes_the_best_below_where_an_op_has_none_of_that_name() -> None:
    with forced("avx2" if _C.features()["avx2"] else "reference"):
        ops.unpack_nibbles(torch.zeros(3, 2, dtype=torch.int32), 16)
        assert _C.last_run("unpack_nibbles") in ("avx2", "reference")


def test_gradients_are_refused_not_wrong() -> None:
    x = X.clone().requires_grad_()
    y = ops.linear_w8a8_int8(x, INT8, SCALE)
    if y.requires_grad:
        with pytest.warns(UserWarning, match="autograd"):
            y.sum().backward()
        assert x.grad is None
