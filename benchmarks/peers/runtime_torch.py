# SPDX-License-Identifier: Apache-2.0
"""torch's own linear layers."""

from __future__ import annotations

import numpy as np
import torch
from with_torch import GROUP, peer, start, tensor
from worker import Peer

__all__ = ["PEERS", "start"]


def bf16(weight: np.ndarray) -> Peer:
    w = tensor(weight).bfloat16()
    return peer(w.nbytes, lambda x: torch.nn.functional.linear(x, w))


def bf16_prepacked(weight: np.ndarray) -> Peer:
    packed = torch.ops.mkldnn._reorder_linear_weight(tensor(weight).bfloat16(), None)
    call = lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")  # noqa: E731
    return peer(2 * weight.size, call)


def int8_dynamic(weight: np.ndarray, engine: str) -> Peer:
    """torch's dynamic quantized Linear: one activation scale for all tokens, float32 in and out."""
    torch.backends.quantized.engine = engine  # the packed weight remembers it
    w = tensor(weight)
    scale = (w.abs().amax(1) / 127).double()
    codes = torch.quantize_per_channel(w, scale, torch.zeros(len(w), dtype=torch.long), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(codes, None)
    call = lambda x: torch.ops.quantized.linear_dynamic(x, packed, False)  # noqa: E731
    return peer(weight.size, call, torch.float32)


def int4pack(weight: np.ndarray) -> Peer:
    """torch's 4-bit weights with zero points, groups of 128."""
    n, k = weight.shape
    groups = tensor(weight).view(n, k // GROUP, GROUP)
    low, high = groups.amin(2), groups.amax(2)
    scale = ((high - low) / 15).clamp(min=1e-8)
    codes = ((groups - low[..., None]) / scale[..., None]).round_().clamp_(0, 15).to(torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.view(n, k), 1)
    scales_zeros = torch.stack([scale, low + 8 * scale], -1).transpose(0, 1).contiguous().bfloat16()
    call = lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales_zeros)  # noqa: E731
    return peer(weight.size // 2 + scales_zeros.nbytes, call)


def _fp8(weight: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    w = tensor(weight)
    scale = w.abs().amax(1) / 448
    return (w / scale[:, None]).to(torch.float8_e4m3fn), scale


def fp8_scaled_mm(weight: np.ndarray) -> Peer:
    """FP8 on both sides, as vLLM calls it on a CPU."""
    codes, scale = _fp8(weight)
    row = scale[None, :].contiguous()

    def call(x: torch.Tensor) -> torch.Tensor:
        token = x.abs().amax(-1, keepdim=True).float() / 448
        quantized = (x.float() / token).to(torch.float8_e4m3fn)
        return torch._scaled_mm(quantized, codes.t(), scale_a=token, scale_b=row, out_dtype=torch.bfloat16)

    return peer(weight.size, call)


def fp8_dequantized(weight: np.ndarray) -> Peer:
    """FP8 weights made bfloat16 in every call; activations stay bfloat16."""
    codes, scale = _fp8(weight)
    row = scale.bfloat16()
    return peer(weight.size, lambda x: torch.nn.functional.linear(x, codes.bfloat16()) * row)


PEERS = {
    "torch_bf16": bf16,
    "torch_bf16_prepacked": bf16_prepacked,
    "torch_int8_x86": lambda weight: int8_dynamic(weight, "x86"),
    "torch_int8_onednn": lambda weight: int8_dynamic(weight, "onednn"),
    "torch_int4pack": int4pack,
    "torch_fp8_scaled_mm": fp8_scaled_mm,
    "torch_fp8_dequantized": fp8_dequantized,
}
