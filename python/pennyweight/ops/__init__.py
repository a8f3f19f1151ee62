# SPDX-License-Identifier: Apache-2.0
"""The operators as typed Python functions; the same ones are in ``torch.ops.pennyweight``.

All are functional except where "in place" is said, run on torch's threads, give the same bits for any number
of them, and can be traced by ``torch.compile``. Letters: M tokens, N outputs, K inputs, G elements of K that
share a scale. "Any float" means float32, float16 or bfloat16; FP8 codes (E4M3) travel as uint8.

Raises (all of them):
    ShapeError: a shape, dtype, size or device does not fit the others.
    UnsupportedError: no implementation fits; the text lists each candidate with its reason.
    MemoryError: a workspace could not be had.
"""

from pennyweight.ops import _fake, gptq_on_card
from pennyweight.ops.attention import attention_decode, rotary
from pennyweight.ops.calibrate import (
    column_abs_max,
    column_range,
    gptq_columns,
    gptq_quantize,
    hessian_accumulate,
    quantize_weight,
    smooth_scales,
    weight_scales,
)
from pennyweight.ops.decode import decode_back, decode_front
from pennyweight.ops.linear import (
    gemm_w8a8_fp8,
    gemm_w8a8_int8,
    linear_bf16,
    linear_w4a8_int8,
    linear_w4a16,
    linear_w8a8_fp8,
    linear_w8a8_int8,
)
from pennyweight.ops.pack import (
    dequantize_fp8,
    dequantize_int4,
    dequantize_int8,
    pack_fp8,
    pack_int4,
    pack_int8,
    pack_nibbles,
    unpack_fp8,
    unpack_int4,
    unpack_int8,
    unpack_nibbles,
)
from pennyweight.ops.quantize import (
    quantize_per_token_fp8,
    quantize_per_token_int8,
    rms_norm,
    rms_norm_quantize_fp8,
    rms_norm_quantize_int8,
    silu_mul,
    silu_mul_quantize_fp8,
    silu_mul_quantize_int8,
)

__all__ = [
    "attention_decode",
    "column_abs_max",
    "column_range",
    "decode_back",
    "decode_front",
    "dequantize_fp8",
    "dequantize_int4",
    "dequantize_int8",
    "gemm_w8a8_fp8",
    "gemm_w8a8_int8",
    "gptq_columns",
    "gptq_quantize",
    "hessian_accumulate",
    "linear_bf16",
    "linear_w4a8_int8",
    "linear_w4a16",
    "linear_w8a8_fp8",
    "linear_w8a8_int8",
    "pack_fp8",
    "pack_int4",
    "pack_int8",
    "pack_nibbles",
    "quantize_per_token_fp8",
    "quantize_per_token_int8",
    "quantize_weight",
    "rms_norm",
    "rms_norm_quantize_fp8",
    "rms_norm_quantize_int8",
    "rotary",
    "silu_mul",
    "silu_mul_quantize_fp8",
    "silu_mul_quantize_int8",
    "smooth_scales",
    "unpack_fp8",
    "unpack_int4",
    "unpack_int8",
    "unpack_nibbles",
    "weight_scales",
]

_fake.register()
_on_cards = gptq_on_card.register()
