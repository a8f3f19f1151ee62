# SPDX-License-Identifier: Apache-2.0
"""The torch operators once more: the kernel library's plain loops on NumPy buffers, one thread, arguments by name.

Nothing here passes through the operator library, so that a wrong size, stride or pointer there shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pennyweight as pw
from pennyweight import _C

NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.int32: "i32"}
FORMATS = {"int8": 8, "int4": 4, "fp8": 0}
INT4_SCALE_BYTES = {"bf16": 2, "f16": 2, "f32": 4}
# Sums in float32 whose order is an implementation's own; everything else has the same bits from all of them.
FLOAT_SUMS = {
    *("gemm_w8a8_fp8", "linear_w8a8_fp8", "linear_w4a16", "linear_bf16"),
    *("hessian_accumulate", "gptq_quantize"),
}


def runnable(op: str) -> list[str]:
    """The implementations of an operator that this machine can run, best first."""
    return [i.name for i in pw.implementations()[op] if i.why_not is None]


@contextlib.contextmanager
def forced(implementation: str | None) -> Iterator[None]:
    """Forces an implementation within the block."""
    _C.force(implementation)
    try:
        yield
    finally:
        _C.force(None)


def array(t: Tensor | None) -> Any:
    """A contiguous copy for NumPy, 16-bit floats as their bits; None stays None."""
    if t is None:
        return None
    t = t.detach().clone(memory_format=torch.contiguous_format)
    return t.view(torch.int16).numpy() if t.dtype in (torch.float16, torch.bfloat16) else t.numpy()


class Plain:
    """One method per operator, with the operator's arguments; each returns a tuple of tensors."""

    def run(self, op: str, outputs: dict[str, Tensor | None], **args: Any) -> tuple[Tensor, ...]:
        """Runs with tensors, sizes and dtypes by field name; outputs are written in place and returned."""
        buffers = {name: array(t) for name, t in outputs.items()}
        given = {name: array(v) if isinstance(v, Tensor) else v for name, v in args.items()}
        _C.run(op, given | buffers, "reference")
        done = []
        for name, t in outputs.items():
            if t is not None:
                done.append(torch.from_numpy(buffers[name]).view(t.dtype).reshape(t.shape))
        return tuple(done)

    def __call__(self, op: str, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        for end, family in _FAMILIES.items():
            if op in family:
                return getattr(self, end)(op, *args, **kwargs)  # type: ignore[no-any-return]
        raise KeyError(op)

    def quantize(self, op: str, x: Tensor, smooth: Tensor | None = None) -> tuple[Tensor, ...]:
        k = x.shape[-1]
        out = {"codes": torch.empty(x.shape, dtype=codes_dtype(op)), "scale": torch.empty(*x.shape[:-1], 1)}
        sizes = {"m": x.numel() // k, "k": k, "x_stride": k, "x_dtype": NAMES[x.dtype]}
        return self.run(op, out, x=x, smooth=smooth, **sizes)

    def rms_norm(
        self, op: str, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        k = x.shape[-1]
        hidden = None if residual is None else torch.empty(x.shape, dtype=x.dtype)
        if op == "rms_norm":
            out = {"normed": torch.empty(x.shape, dtype=x.dtype)}
        else:
            out = {
                "codes": torch.empty(x.shape, dtype=codes_dtype(op)),
                "scale": torch.empty(*x.shape[:-1], 1),
            }
        sizes = {"m": x.numel() // k, "k": k, "x_stride": k, "residual_stride": k, "x_dtype": NAMES[x.dtype]}
        done = self.run(op, out | {"hidden": hidden}, x=x, weight=weight, residual=residual, eps=eps, **sizes)
        return done if residual is not None else (*done, torch.empty(0, dtype=x.dtype))

    def silu_mul(self, op: str, gate_up: Tensor) -> tuple[Tensor, ...]:
        lead, k = gate_up.shape[:-1], gate_up.shape[-1] // 2
        if op == "silu_mul":
            out = {"y": torch.empty(*lead, k, dtype=gate_up.dtype)}
        else:
            out = {"codes": torch.empty(*lead, k, dtype=codes_dtype(op)), "scale": torch.empty(*lead, 1)}
        sizes = {"m": gate_up.numel() // (2 * k), "k": k, "x_stride": 2 * k, "x_dtype": NAMES[gate_up.dtype]}
        return self.run(op, out, gate_up=gate_up, **sizes)

    def rotary(self, op: str, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        d = cos.shape[-1]
        sizes = {"m": x.numel() // x.shape[-1], "heads": x.shape[-1] // d, "d": d, "x_stride": x.shape[-1]}
        strides = {f"{name}_stride": 0 if t.numel() == d else d for name, t in (("cos", cos), ("sin", sin))}
        out = {"y": torch.empty(x.shape, dtype=x.dtype)}
        return self.run(op, out, x=x, cos=cos, sin=sin, **sizes, **strides, x_dtype=NAMES[x.dtype])

    def attention_decode(
        self, op: str, q: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        b, kv_heads, t, d = keys.shape
        sizes = {"b": b, "heads": q.shape[-1] // d, "kv_heads": kv_heads, "t": t, "d": d}
        strides = {"q_stride": q.shape[-1], "mask_stride": t}
        for name in ("key", "value"):
            strides |= {f"{name}_batch": kv_heads * t * d, f"{name}_head": t * d, f"{name}_token": d}
        tensors = {"q": q, "keys": keys, "values": values, "mask": None if mask is None else mask.byte()}
        out = {"y": torch.empty(q.shape, dtype=q.dtype)}
        return self.run(op, out, **tensors, **sizes, **strides, scale=scale, x_dtype=NAMES[q.dtype])

    def gemm(
        self,
        op: str,
        codes: Tensor,
        row_scale: Tensor | None,
        weight: Tensor,
        col_scale: Tensor | None,
        n: int,
        bias: Tensor | None,
        out_dtype: torch.dtype,
        fast_accum: bool = True,
    ) -> tuple[Tensor, ...]:
        k = codes.shape[-1]
        y = torch.empty(*codes.shape[:-1], n, dtype=out_dtype)
        tensors = {"row_scale": row_scale, "weight": weight, "col_scale": col_scale, "bias": bias}
        sizes = {"m": codes.numel() // k, "n": n, "k": k, "codes_stride": k, "y_stride": n}
        return self.run(op, {"y": y}, codes=codes, **tensors, **sizes, y_dtype=NAMES[out_dtype])

    def linear8(
        self,
        op: str,
        x: Tensor,
        weight: Tensor,
        col_scale: Tensor,
        bias: Tensor | None = None,
        smooth: Tensor | None = None,
        fast_accum: bool = True,
    ) -> tuple[Tensor, ...]:
        n, tensors = col_scale.numel(), {"weight": weight, "col_scale": col_scale, "smooth": smooth}
        return self._linear(op, x, n, bias, **tensors)

    def linear4(
        self,
        op: str,
        x: Tensor,
        weight: Tensor,
        n: int,
        group_size: int,
        scale_dtype: str,
        zero_points: bool,
        bias: Tensor | None = None,
        **smooth: Tensor,
    ) -> tuple[Tensor, ...]:
        form = int4_form(x.shape[-1], group_size, scale_dtype) | {"zero_points": int(zero_points)}
        return self._linear(op, x, n, bias, weight=weight, **form, **smooth)

    def linear16(self, op: str, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        (n, k), lead = weight.shape, x.shape[:-1]
        sizes = {"m": x.numel() // k, "n": n, "k": k, "x_stride": k, "w_stride": k, "y_stride": n}
        y = torch.empty(*lead, n, dtype=x.dtype)
        return self.run(op, {"y": y}, x=x, weight=weight, bias=bias, **sizes)

    def _linear(self, op: str, x: Tensor, n: int, bias: Tensor | None, **more: Any) -> tuple[Tensor, ...]:
        k = x.shape[-1]
        sizes = {"m": x.numel() // k, "n": n, "k": k, "x_stride": k, "y_stride": n, "x_dtype": NAMES[x.dtype]}
        y = torch.empty(*x.shape[:-1], n, dtype=x.dtype)
        return self.run(op, {"y": y}, x=x, bias=bias, **sizes, **more)

    def pack8(self, op: str, codes: Tensor) -> tuple[Tensor, ...]:
        n, k = codes.shape
        bytes_ = -(-n // 64) * 64 * -(-k // 4) * 4
        return self.run(op, {"weight": torch.empty(bytes_, dtype=torch.uint8)}, codes=codes, n=n, k=k)

    def unpack8(self, op: str, weight: Tensor, n: int, k: int) -> tuple[Tensor, ...]:
        return self.run(op, {"codes": torch.empty(n, k, dtype=codes_dtype(op))}, weight=weight, n=n, k=k)

    def dequantize8(self, op: str, weight: Tensor, scale: Tensor, n: int, k: int) -> tuple[Tensor, ...]:
        return self.run(op, {"out": torch.empty(n, k)}, weight=weight, scale=scale, n=n, k=k)

    def pack4(
        self, op: str, codes: Tensor, scale: Tensor, zeros: Tensor | None, scale_dtype: str
    ) -> tuple[Tensor, ...]:
        (n, k), groups = codes.shape, scale.shape[1]
        block = 64 * (4 * -(-(k // groups) // 8) + INT4_SCALE_BYTES[scale_dtype] + (zeros is not None))
        weight = torch.empty(-(-n // 64) * groups * block, dtype=torch.uint8)
        form = {"n": n} | int4_form(k, k // groups, scale_dtype)
        return self.run(op, {"weight": weight}, codes=codes, scale=scale, zeros=zeros, k=k, **form)

    def unpack4(
        self, op: str, weight: Tensor, n: int, k: int, group_size: int, scale_dtype: str, zero_points: bool
    ) -> tuple[Tensor, ...]:
        form = int4_form(k, group_size, scale_dtype)
        groups = k // form["group_size"]
        out: dict[str, Tensor | None] = {
            "codes": torch.empty(n, k, dtype=torch.int8),
            "scale": torch.empty(n, groups),
            "zeros": torch.empty(n, groups, dtype=torch.int8) if zero_points else None,
        }
        done = self.run(op, out, weight=weight, n=n, k=k, **form)
        return done if zero_points else (*done, torch.empty(0, dtype=torch.int8))

    def dequantize4(
        self, op: str, weight: Tensor, n: int, k: int, group_size: int, scale_dtype: str, zero_points: bool
    ) -> tuple[Tensor, ...]:
        form = int4_form(k, group_size, scale_dtype) | {"zero_points": int(zero_points)}
        return self.run(op, {"out": torch.empty(n, k)}, weight=weight, n=n, k=k, **form)

    def pack_nibbles(self, op: str, codes: Tensor) -> tuple[Tensor, ...]:
        rows, columns = codes.shape
        words = torch.empty(rows, -(-columns // 8), dtype=torch.int32)
        return self.run(op, {"words": words}, codes=codes, rows=rows, columns=columns)

    def unpack_nibbles(self, op: str, words: Tensor, columns: int) -> tuple[Tensor, ...]:
        codes = torch.empty(words.shape[0], columns, dtype=torch.int8)
        return self.run(op, {"codes": codes}, words=words, rows=words.shape[0], columns=columns)

    def hessian(self, op: str, h: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        k = x.shape[-1]
        return self.run(op, {"h": h}, x=x, t=x.numel() // k, k=k, x_stride=k, x_dtype=NAMES[x.dtype])

    def gptq(
        self,
        op: str,
        weight: Tensor,
        hessian: Tensor,
        scale: Tensor,
        bits: int,
        group_size: int,
        damping: float,
        act_order: bool,
    ) -> tuple[Tensor, ...]:
        n, k = weight.shape
        out: dict[str, Tensor | None] = {
            "codes": torch.empty(n, k, dtype=torch.int8),
            "stats": torch.empty(5, dtype=torch.float64),
        }
        sizes = {"n": n, "k": k, "group_size": k if group_size == -1 else group_size, "bits": bits}
        how = {"damping": damping, "act_order": int(act_order), "retries": 5, "w_dtype": NAMES[weight.dtype]}
        return self.run(op, out, weight=weight, h=hessian, scale=scale, **sizes, **how)

    def gptq_columns(
        self,
        op: str,
        factor: Tensor,
        sums: Tensor,
        scale: Tensor,
        group: Tensor,
        residual: Tensor,
        codes: Tensor,
        loss: Tensor,
        first: int,
        bits: int,
    ) -> tuple[Tensor, ...]:
        layers, n, k = residual.shape
        tensors = {"factor": factor, "sums": sums, "scale": scale, "group": group}
        sizes = {"layers": layers, "n": n, "k": k, "groups": scale.shape[2], "first": first, "bits": bits}
        return self.run(op, {"residual": residual, "codes": codes, "loss": loss}, **tensors, **sizes)

    def weight_scales(
        self, op: str, weight: Tensor, scheme: str, group_size: int, observer: str
    ) -> tuple[Tensor, ...]:
        n, k = weight.shape
        group = k if group_size == -1 else group_size
        search = {"mse": int(observer == "mse"), "grid": 100, "patience": 5, "maxshrink": 0.2, "norm": 2.4}
        sizes = {
            "n": n,
            "k": k,
            "group_size": group,
            "format": FORMATS[scheme],
            "w_dtype": NAMES[weight.dtype],
        }
        return self.run(op, {"scale": torch.empty(n, k // group)}, weight=weight, **sizes, **search)

    def quantize_weight(
        self, op: str, weight: Tensor, scale: Tensor, group_size: int, scheme: str
    ) -> tuple[Tensor, ...]:
        n, k = weight.shape
        codes = torch.empty(n, k, dtype=torch.uint8 if scheme == "fp8" else torch.int8)
        group = k if group_size == -1 else group_size
        sizes = {
            "n": n,
            "k": k,
            "group_size": group,
            "format": FORMATS[scheme],
            "w_dtype": NAMES[weight.dtype],
        }
        return self.run(op, {"codes": codes}, weight=weight, scale=scale, **sizes)

    def column_range(self, op: str, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, ...]:
        k = x.shape[-1]
        sizes = {"t": x.numel() // k, "k": k, "x_stride": k, "x_dtype": NAMES[x.dtype]}
        return self.run(op, {"low": low, "high": high}, x=x, **sizes)

    def column_abs_max(self, op: str, weight: Tensor) -> tuple[Tensor, ...]:
        n, k = weight.shape
        return self.run(op, {"out": torch.empty(k)}, weight=weight, n=n, k=k, w_dtype=NAMES[weight.dtype])

    def smooth_scales(
        self, op: str, low: Tensor, high: Tensor, weight_abs_max: Tensor, strength: float
    ) -> tuple[Tensor, ...]:
        tensors = {"low": low, "high": high, "weight_abs_max": weight_abs_max}
        return self.run(op, {"scale": torch.empty(low.numel())}, **tensors, k=low.numel(), strength=strength)


_FAMILIES = {
    "quantize": ("quantize_per_token_int8", "quantize_per_token_fp8"),
    "rms_norm": ("rms_norm", "rms_norm_quantize_int8", "rms_norm_quantize_fp8"),
    "silu_mul": ("silu_mul_quantize_int8", "silu_mul_quantize_fp8", "silu_mul"),
    **{name: (name,) for name in ("rotary", "attention_decode")},
    "gemm": ("gemm_w8a8_int8", "gemm_w8a8_fp8"),
    "linear8": ("linear_w8a8_int8", "linear_w8a8_fp8"),
    "linear4": ("linear_w4a16", "linear_w4a8_int8"),
    "linear16": ("linear_bf16",),
    "pack8": ("pack_int8", "pack_fp8"),
    "unpack8": ("unpack_int8", "unpack_fp8"),
    "dequantize8": ("dequantize_int8", "dequantize_fp8"),
    "pack4": ("pack_int4",),
    "unpack4": ("unpack_int4",),
    "dequantize4": ("dequantize_int4",),
    "hessian": ("hessian_accumulate",),
    "gptq": ("gptq_quantize",),
    **{
        name: (name,)
        for name in ("pack_nibbles", "unpack_nibbles", "weight_scales", "quantize_weight", "column_range")
    },
    "gptq_columns": ("gptq_columns",),
    **{name: (name,) for name in ("column_abs_max", "smooth_scales")},
}


reference = Plain()


def codes_dtype(op: str) -> torch.dtype:
    """uint8 for E4M3 codes, else int8."""
    return torch.uint8 if op.endswith("fp8") else torch.int8


def int4_form(k: int, group_size: int, scale_dtype: str) -> dict[str, Any]:
    """The fields of a 4-bit weight that its codes do not say."""
    return {"group_size": k if group_size == -1 else group_size, "scale_dtype": scale_dtype}


def bits(t: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's bytes, so that NaN equals NaN and -0 differs from 0."""
    return (
        t.detach().clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy()
        if t.numel()
        else np.zeros(0, np.uint8)
    )


def assert_same_bits(got: Tensor, want: Tensor, what: str = "") -> None:
    """Shape, dtype and every bit, or the first coordinate that differs with both values."""
    assert (got.shape, got.dtype) == (want.shape, want.dtype), what
    if np.array_equal(bits(got), bits(want)):
        return
    step = got.element_size()
    at = int(np.flatnonzero(bits(got).ravel() != bits(want).ravel())[0]) // step
    where = tuple(int(i) for i in np.unravel_index(at, got.shape))
    raise AssertionError(f"{what}: first at {where}: {got[where].item()}, not {want[where].item()}")
