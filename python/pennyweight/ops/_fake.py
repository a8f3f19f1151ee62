# SPDX-License-Identifier: Apache-2.0
"""Shapes and dtypes of every operator's outputs, for tracing, fake tensors and the meta device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pennyweight.errors import ShapeError

_PANEL = 64  # outputs side by side in a packed weight (kernels/include/pennyweight/formats.h)
_SCALE_BYTES = {"bf16": 2, "f16": 2, "f32": 4}


def _same_device(name: str, implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Refuses a mix of devices, of which the dispatcher would pick the fake one silently."""

    def fake(*args: Any, **kwargs: Any) -> Any:
        devices = {str(a.device) for a in (*args, *kwargs.values()) if isinstance(a, Tensor)}
        if len(devices) > 1:
            got = ", ".join(sorted(devices))
            raise ShapeError(f"{name}: all tensors must be on one device; got {got}; move them with .to()")
        return implementation(*args, **kwargs)

    return fake


def _quantize(dtype: torch.dtype) -> Callable[..., Any]:
    def fake(x: Tensor, smooth: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.new_empty(x.shape, dtype=dtype), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)

    return fake


def _rms_norm_quantize(dtype: torch.dtype) -> Callable[..., Any]:
    def fake(
        x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = x.new_empty(0 if residual is None else x.shape)
        return *_quantize(dtype)(x), hidden

    return fake


def _rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0 if residual is None else x.shape)


def _silu_mul_quantize(dtype: torch.dtype) -> Callable[..., Any]:
    def fake(gate_up: Tensor) -> tuple[Tensor, Tensor]:
        shape = gate_up.shape[:-1]
        codes = gate_up.new_empty((*shape, gate_up.shape[-1] // 2), dtype=dtype)
        return codes, gate_up.new_empty((*shape, 1), dtype=torch.float32)

    return fake


def _gemm(
    codes: Tensor, row_scale: Any, weight: Tensor, col_scale: Any, n: int, bias: Any, out_dtype: Any, *_: Any
) -> Tensor:
    return codes.new_empty((*codes.shape[:-1], n), dtype=out_dtype)


def _linear_w8a8(x: Tensor, weight: Tensor, col_scale: Tensor, *_: Any, **__: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], col_scale.numel()))


def _linear_w4(x: Tensor, weight: Tensor, n: int, *_: Any, **__: Any) -> Tensor:
    return x.new_empty((*x.shape[:-1], n))


def _linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _panels(n: int) -> int:
    return (n + _PANEL - 1) // _PANEL


def _pack(codes: Tensor) -> Tensor:
    n, k = codes.shape
    rows = n * ((k + 15) // 16 * 16)  # on a card
    panels = _panels(n) * _PANEL * ((k + 3) // 4 * 4)
    return codes.new_empty(rows if codes.device.type == "cuda" else panels, dtype=torch.uint8)


def _unpack(dtype: torch.dtype) -> Callable[..., Any]:
    return lambda weight, n, k: weight.new_empty((n, k), dtype=dtype)


def _dequantize(weight: Tensor, scale: Tensor, n: int, k: int) -> Tensor:
    return weight.new_empty((n, k), dtype=torch.float32)


def _pack_int4(codes: Tensor, scale: Tensor, zeros: Tensor | None, scale_dtype: str) -> Tensor:
    (n, k), groups = codes.shape, scale.shape[1]
    words = (k // groups + 7) // 8
    block = _PANEL * (4 * words + _SCALE_BYTES[scale_dtype] + (zeros is not None))
    return codes.new_empty(_panels(n) * groups * block, dtype=torch.uint8)


def _unpack_int4(
    weight: Tensor, n: int, k: int, group_size: int, scale_dtype: str, zero_points: bool
) -> tuple[Tensor, Tensor, Tensor]:
    groups = 1 if group_size == -1 else k // group_size
    zeros = weight.new_empty((n, groups) if zero_points else 0, dtype=torch.int8)
    return (
        weight.new_empty((n, k), dtype=torch.int8),
        weight.new_empty((n, groups), dtype=torch.float32),
        zeros,
    )


def _dequantize_int4(weight: Tensor, n: int, k: int, *_: Any) -> Tensor:
    return weight.new_empty((n, k), dtype=torch.float32)


def _pack_nibbles(codes: Tensor) -> Tensor:
    rows, columns = codes.shape
    return codes.new_empty((rows, (columns + 7) // 8), dtype=torch.int32)


def _gptq(weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return weight.new_empty(weight.shape, dtype=torch.int8), weight.new_empty(5, dtype=torch.float64)


def _weight_scales(weight: Tensor, scheme: str, group_size: int, *_: Any, **__: Any) -> Tensor:
    groups = 1 if group_size == -1 else weight.shape[1] // group_size
    return weight.new_empty((weight.shape[0], groups), dtype=torch.float32)


def _quantize_weight(weight: Tensor, scale: Tensor, group_size: int, scheme: str) -> Tensor:
    return weight.new_empty(weight.shape, dtype=torch.uint8 if scheme == "fp8" else torch.int8)


def _decode_front(
    x: Tensor,
    norm_weight: Tensor,
    eps: float,
    scheme: str,
    weight: Tensor,
    col_scale: Tensor | None,
    scale_dtype: str,
    form: list[int],
    bias: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    kv_heads: int,
    values_begin: int,
) -> tuple[Tensor, Tensor, Tensor]:
    d = cos.shape[-1]
    cached = (x.numel() // x.shape[-1], kv_heads, 1, d)
    return x.new_empty((*x.shape[:-1], heads * d)), x.new_empty(cached), x.new_empty(cached)


def _decode_back(
    q: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Any, residual: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, Tensor]:
    return residual.new_empty(residual.shape), residual.new_empty(residual.shape)


_FAKES: dict[str, Callable[..., Any]] = {
    "quantize_per_token_int8": _quantize(torch.int8),
    "quantize_per_token_fp8": _quantize(torch.uint8),
    "rms_norm": _rms_norm,
    "rms_norm_quantize_int8": _rms_norm_quantize(torch.int8),
    "rms_norm_quantize_fp8": _rms_norm_quantize(torch.uint8),
    "silu_mul_quantize_int8": _silu_mul_quantize(torch.int8),
    "silu_mul_quantize_fp8": _silu_mul_quantize(torch.uint8),
    "silu_mul": lambda gate_up: gate_up.new_empty((*gate_up.shape[:-1], gate_up.shape[-1] // 2)),
    "rotary": lambda x, cos, sin: x.new_empty(x.shape),
    "attention_decode": lambda q, keys, values, scale, mask=None: q.new_empty(q.shape),
    "decode_front": _decode_front,
    "decode_back": _decode_back,
    "gemm_w8a8_int8": _gemm,
    "gemm_w8a8_fp8": _gemm,
    "linear_w8a8_int8": _linear_w8a8,
    "linear_w8a8_fp8": _linear_w8a8,
    "linear_w4a16": _linear_w4,
    "linear_w4a8_int8": _linear_w4,
    "linear_bf16": _linear_bf16,
    "pack_int8": _pack,
    "unpack_int8": _unpack(torch.int8),
    "dequantize_int8": _dequantize,
    "pack_fp8": _pack,
    "unpack_fp8": _unpack(torch.uint8),
    "dequantize_fp8": _dequantize,
    "pack_int4": _pack_int4,
    "unpack_int4": _unpack_int4,
    "dequantize_int4": _dequantize_int4,
    "pack_nibbles": lambda codes: codes.new_empty(
        (codes.shape[0], (codes.shape[1] + 7) // 8), dtype=torch.int32
    ),
    "unpack_nibbles": lambda words, columns: words.new_empty((words.shape[0], columns), dtype=torch.int8),
    "hessian_accumulate": lambda h, x: None,
    "gptq_quantize": _gptq,
    "gptq_columns": lambda *_: None,
    "weight_scales": _weight_scales,
    "quantize_weight": _quantize_weight,
    "column_range": lambda x, low, high: None,
    "column_abs_max": lambda weight: weight.new_empty(weight.shape[1], dtype=torch.float32),
    "smooth_scales": lambda low, high, weight_abs_max, strength: low.new_empty(low.numel()),
}


def register() -> None:
    """Registers all of them with torch; once per process."""
    for name, implementation in _FAKES.items():
        torch.library.register_fake(f"pennyweight::{name}", _same_device(name, implementation))
