# SPDX-License-Identifier: Apache-2.0
"""Small inputs for every operator, for ``torch.library.opcheck`` and for users' own tests.

    for args, kwargs in pw.testing.sample_inputs(pw.ops.linear_w4a16):
        torch.library.opcheck(torch.ops.pennyweight.linear_w4a16.default, args, kwargs)

Sizes stand just over a panel (64 outputs) and a step of K, so that tails are met; values are the same each time.
"""

import difflib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pennyweight import ops
from pennyweight.errors import UnsupportedError

Sample = tuple[tuple[Any, ...], dict[str, Any]]
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_N, _K = 70, 132
_INT4: tuple[tuple[int, int, str, bool], ...] = (
    (128, 32, "bf16", True),
    (128, 128, "f16", False),
    (_K, -1, "f32", False),
)  # K, G, scales, zero points


def sample_inputs(op: str | Callable[..., Any]) -> list[Sample]:
    """Small inputs for an operator.

    Args:
        op: Its name, its function in ``pennyweight.ops``, or ``torch.ops.pennyweight.<name>``, overload or not.
    Returns:
        [(args, kwargs), ...], made anew each time, on the CPU.
    Raises:
        UnsupportedError: no operator has this name.
    """
    name = _name_of(op)
    if name not in _SAMPLES:
        near = difflib.get_close_matches(name, _SAMPLES) or sorted(_SAMPLES)
        raise UnsupportedError(
            f"sample_inputs: no operator is called '{name}'; did you mean {', '.join(near)}?"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _SAMPLES[name]()


def operators() -> list[str]:
    """The names of all operators."""
    return list(_SAMPLES)


def _name_of(op: str | Callable[..., Any]) -> str:
    if isinstance(op, str):
        return op.removeprefix("pennyweight::")
    if isinstance(op, torch._ops.OpOverload):
        return op._opname
    return getattr(op, "__name__", str(op))


def _x(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(dtype)


def _strided(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    return _x(rows, columns + 5, dtype=dtype)[:, :columns]


def _codes8(n: int, k: int, fp8: bool = False) -> Tensor:
    """Any int8; or E4M3 codes without NaN."""
    if fp8:
        return torch.randn(n, k).to(torch.float8_e4m3fn).view(torch.uint8)
    return torch.randint(-128, 128, (n, k), dtype=torch.int8)


def _codes4(n: int, k: int) -> Tensor:
    return torch.randint(-8, 8, (n, k), dtype=torch.int8)


def _scale(*shape: int) -> Tensor:
    return (torch.rand(shape) * 0.02 + 0.001).bfloat16().float()  # exact in bf16, f16 and f32 alike


def _quantize() -> list[Sample]:
    plain: list[Sample] = [((_x(2, 3, _K, dtype=dtype),), {}) for dtype in _FLOATS]
    return [*plain, ((_strided(3, _K, torch.bfloat16), torch.rand(_K) + 0.5), {}), ((_x(0, _K),), {})]


def _rms_norm() -> list[Sample]:
    bf16 = torch.bfloat16
    plain: list[Sample] = [((_x(2, 3, _K, dtype=t), _x(_K, dtype=t), 1e-5), {}) for t in _FLOATS]
    residual = {"residual": _strided(3, _K, bf16)}
    return [*plain, ((_strided(3, _K, bf16), _x(_K, dtype=bf16), 1e-6), residual)]


def _silu_mul() -> list[Sample]:
    plain: list[Sample] = [((_x(2, 3, 2 * _K, dtype=dtype),), {}) for dtype in _FLOATS]
    return [*plain, ((_strided(3, 2 * _K, torch.float16),), {})]


def _rotary() -> list[Sample]:
    samples: list[Sample] = []
    for dtype, heads, d in zip(_FLOATS, (5, 3, 1), (64, 40, 6), strict=True):
        samples.append(
            ((_x(2, 3, heads * d, dtype=dtype), _x(6, d, dtype=dtype), _x(2, 3, d, dtype=dtype)), {})
        )
        samples.append(((_strided(3, heads * d, dtype), _x(1, d, dtype=dtype), _strided(3, d, dtype)), {}))
    return [*samples, ((_x(0, 8), _x(1, 4), _x(1, 4)), {})]


def _attention_decode() -> list[Sample]:
    samples: list[Sample] = []
    for dtype, heads, kv_heads, t, d in zip(
        _FLOATS, (8, 6, 5), (2, 1, 5), (37, 16, 1), (64, 40, 5), strict=True
    ):
        q, cache = _x(2, heads * d, dtype=dtype), _x(2, 2, kv_heads, t + 3, d, dtype=dtype)
        keys, values = cache[0, :, :, 3:], cache[1].transpose(1, 2).contiguous().transpose(1, 2)[:, :, :t]
        samples.append(((q, keys, values, d**-0.5), {}))
        mask = torch.arange(t) >= torch.tensor([[t // 2], [0]])
        samples.append(((_x(2, 1, heads * d, dtype=dtype), keys, values, 0.3, mask), {}))
    return [*samples, ((_x(1, 16), _x(1, 1, 9, 16), _x(1, 1, 9, 16), 1.0, torch.zeros(1, 9) > 0), {})]


def _operands(scheme: str, n: int, k: int, bias: Tensor | None) -> tuple[Any, ...]:
    """A layer as decode_front and decode_back take it; INT4 has zero points where there is a bias."""
    if scheme != "int4":
        codes = _codes8(n, k, scheme == "fp8")
        weight = (ops.pack_fp8 if scheme == "fp8" else ops.pack_int8)(codes)
        return scheme, weight, torch.rand(n) * 0.01, "", [n, -1, 0], bias
    form = (32, "bf16", bias is not None)
    return scheme, ops.pack_int4(*_int4(n, k, *form)), None, "bf16", [n, 32, int(form[2])], bias


def _decode_front() -> list[Sample]:
    samples: list[Sample] = []
    heads, kv_heads, d, k, n = 4, 2, 24, 64, 192 + 48
    for scheme, dtype, rows in zip(("int8", "fp8", "int4"), _FLOATS, (3, 1, 2), strict=True):
        layer = _operands(scheme, n, k, _x(n, dtype=dtype) if rows > 1 else None)
        where = _x(rows, 1, d, dtype=dtype), _x(1, 1, d, dtype=dtype)
        x, weight = _x(rows, 1, k, dtype=dtype), _x(k, dtype=dtype)
        samples.append(((x, weight, 1e-5, *layer, *where, heads, kv_heads, 192), {}))
    return [*samples, ((x[:0], weight, 1e-5, *layer, *where[1:] * 2, heads, kv_heads, 144), {})]


def _decode_back() -> list[Sample]:
    samples: list[Sample] = []
    heads, kv_heads, d, t, k, half, size = 4, 2, 24, 9, 64, 128, 96
    kinds = (("int8",) * 3, ("fp8", "int4", "int8"), ("int4",) * 3)
    for schemes, dtype, rows in zip(kinds, _FLOATS, (3, 1, 2), strict=True):
        shapes = ((k, heads * d), (2 * half, k), (k, size))
        o, gate_up, down = (
            _operands(scheme, *shape, _x(shape[0], dtype=dtype) if rows > 1 else None)
            for scheme, shape in zip(schemes, shapes, strict=True)
        )
        cached = _x(2, rows, kv_heads, t, d, dtype=dtype)
        mask = torch.arange(t).expand(rows, t) > 1 if rows > 1 else None
        attention = (_x(rows, 1, heads * d, dtype=dtype), *cached, d**-0.5, mask)
        x, weight = _x(rows, 1, k, dtype=dtype), _x(k, dtype=dtype)
        samples.append(((*attention, x, *o, weight, 1e-5, *gate_up, size, *down), {}))
    return samples


def _gemm(fp8: bool) -> list[Sample]:
    pack = ops.pack_fp8 if fp8 else ops.pack_int8
    weight = pack(_codes8(_N, _K, fp8))
    rows = torch.rand(3, 1), weight, torch.rand(_N)
    samples: list[Sample] = []
    for dtype in _FLOATS:
        bias = _x(_N, dtype=dtype) if dtype != torch.float16 else None
        samples.append(((_codes8(3, _K, fp8), *rows, _N, bias, dtype), {}))
    if not fp8:
        samples.append(((_codes8(5, _K), None, weight, None, _N, None, torch.int32), {}))
    return samples


def _linear8(fp8: bool) -> list[Sample]:
    weight, scale = (ops.pack_fp8 if fp8 else ops.pack_int8)(_codes8(_N, _K, fp8)), torch.rand(_N, 1) * 0.01
    samples: list[Sample] = [((_x(2, 3, _K, dtype=dtype), weight, scale), {}) for dtype in _FLOATS]
    more = {"bias": _x(_N, dtype=torch.bfloat16), "smooth": torch.rand(_K) + 0.5}
    return [
        *samples,
        ((_strided(17, _K, torch.bfloat16), weight, scale), more),
        ((_x(0, _K), weight, scale), {}),
    ]


def _linear_bf16() -> list[Sample]:
    bf16 = torch.bfloat16
    weight, bias = _x(_N, _K, dtype=bf16), _x(_N, dtype=bf16)
    return [
        ((_x(2, 3, _K, dtype=bf16), weight, bias), {}),
        ((_strided(17, _K, bf16), _strided(_N, _K, bf16)), {}),
        ((_x(0, _K, dtype=bf16), weight), {"bias": bias}),
    ]


def _int4(n: int, k: int, group_size: int, scale_dtype: str, zero_points: bool) -> tuple[Any, ...]:
    """What pack_int4 takes."""
    groups = 1 if group_size == -1 else k // group_size
    zeros = _codes4(n, groups) if zero_points else None
    return _codes4(n, k), _scale(n, groups), zeros, scale_dtype


def _linear4(smooth: bool) -> list[Sample]:
    samples: list[Sample] = []
    for (k, group_size, scale_dtype, zero_points), dtype in zip(_INT4, _FLOATS, strict=True):
        form = (group_size, scale_dtype, zero_points)
        weight = ops.pack_int4(*_int4(_N, k, *form))
        more: dict[str, Any] = {"bias": _x(_N, dtype=dtype)} if dtype != torch.float16 else {}
        if smooth and dtype == torch.bfloat16:
            more["smooth"] = torch.rand(k) + 0.5
        samples.append(((_x(2, 3, k, dtype=dtype), weight, _N, *form), more))
        samples.append(((_strided(17, k, dtype), weight, _N, *form), {}))
    return samples


def _packed4() -> list[Sample]:
    return [((ops.pack_int4(*_int4(_N, *form)), _N, *form), {}) for form in _INT4]


def _panel(fp8: bool) -> Tensor:
    return (ops.pack_fp8 if fp8 else ops.pack_int8)(_codes8(_N, _K, fp8))


def _gptq() -> list[Sample]:
    samples: list[Sample] = []
    for dtype, bits, group_size, act_order in ((torch.bfloat16, 4, 32, True), (torch.float32, 8, -1, False)):
        weight, x = _x(9, 64, dtype=dtype), torch.randn(200, 64)
        scale = ops.weight_scales(weight, f"int{bits}", group_size, "minmax")
        samples.append(((weight, x.T @ x, scale, bits, group_size, 0.01, act_order), {}))
    return samples


def _gptq_columns() -> list[Sample]:
    layers, n, k, groups = 2, 9, 140, 4
    factor = torch.eye(k) + torch.randn(layers, k, k).triu(1) * 0.05
    group = (torch.arange(k, dtype=torch.int32) // (k // groups)).expand(layers, k).contiguous()
    samples: list[Sample] = []
    for first, bits in ((0, 4), (128, 8)):
        sums, w = torch.randn(2, layers, n, k)
        scale, codes = torch.rand(layers, n, groups) + 0.1, torch.zeros(layers, n, k, dtype=torch.int8)
        samples.append(((factor, sums, scale, group, w, codes, torch.zeros(layers, n), first, bits), {}))
    return samples


def _weight_scales() -> list[Sample]:
    kinds = (("int8", -1, "minmax"), ("int4", 32, "mse"), ("fp8", -1, "minmax"))
    return [((_x(9, 64, dtype=t), *kind), {}) for t, kind in zip(_FLOATS, kinds, strict=True)]


def _quantize_weight() -> list[Sample]:
    samples: list[Sample] = []
    for dtype, kind, group_size in zip(_FLOATS, ("int8", "int4", "fp8"), (-1, 32, -1), strict=True):
        weight = _x(9, 64, dtype=dtype)
        scale = ops.weight_scales(weight, kind, group_size, "minmax")
        samples.append(((weight, scale, group_size, kind), {}))
    return samples


def _column_range() -> list[Sample]:
    start = torch.full((_K,), float("inf"))
    return [((_x(5, _K, dtype=dtype), start.clone(), -start), {}) for dtype in _FLOATS]


_SAMPLES: dict[str, Callable[[], list[Sample]]] = {
    "quantize_per_token_int8": _quantize,
    "quantize_per_token_fp8": _quantize,
    "rms_norm": _rms_norm,
    "rms_norm_quantize_int8": _rms_norm,
    "rms_norm_quantize_fp8": _rms_norm,
    "silu_mul_quantize_int8": _silu_mul,
    "silu_mul_quantize_fp8": _silu_mul,
    "silu_mul": _silu_mul,
    "rotary": _rotary,
    "attention_decode": _attention_decode,
    "decode_front": _decode_front,
    "decode_back": _decode_back,
    "gemm_w8a8_int8": lambda: _gemm(fp8=False),
    "gemm_w8a8_fp8": lambda: _gemm(fp8=True),
    "linear_w8a8_int8": lambda: _linear8(fp8=False),
    "linear_w8a8_fp8": lambda: _linear8(fp8=True),
    "linear_w4a16": lambda: _linear4(smooth=False),
    "linear_w4a8_int8": lambda: _linear4(smooth=True),
    "linear_bf16": _linear_bf16,
    "pack_int8": lambda: [((_codes8(_N, _K),), {})],
    "unpack_int8": lambda: [((_panel(False), _N, _K), {})],
    "dequantize_int8": lambda: [((_panel(False), torch.rand(_N, 1), _N, _K), {})],
    "pack_fp8": lambda: [((_codes8(_N, _K, fp8=True),), {})],
    "unpack_fp8": lambda: [((_panel(True), _N, _K), {})],
    "dequantize_fp8": lambda: [((_panel(True), torch.rand(_N), _N, _K), {})],
    "pack_int4": lambda: [(_int4(_N, *form), {}) for form in _INT4],
    "unpack_int4": _packed4,
    "dequantize_int4": _packed4,
    "pack_nibbles": lambda: [((_codes4(3, 13),), {})],
    "unpack_nibbles": lambda: [((ops.pack_nibbles(_codes4(3, 13)), 13), {})],
    "hessian_accumulate": lambda: [((torch.zeros(_K, _K), _x(9, _K, dtype=t)), {}) for t in _FLOATS],
    "gptq_quantize": _gptq,
    "gptq_columns": _gptq_columns,
    "weight_scales": _weight_scales,
    "quantize_weight": _quantize_weight,
    "column_range": _column_range,
    "column_abs_max": lambda: [((_x(9, _K, dtype=dtype),), {}) for dtype in _FLOATS],
    "smooth_scales": lambda: [((-torch.rand(_K), torch.rand(_K), torch.rand(_K), 0.8), {})],
}
