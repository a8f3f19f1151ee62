# SPDX-License-Identifier: Apache-2.0
"""vLLM's operators for CPUs, without vLLM: its library of them is loaded by itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from with_torch import int4, int8, peer, start, tensor
from worker import Peer

__all__ = ["PEERS", "start"]
CACHED_PRIMITIVES = 32


def _load() -> None:
    """Load the library that vLLM itself would choose on this processor."""
    wide, dots = torch.cpu._is_avx512_supported(), torch.cpu._is_avx512_bf16_supported()
    name = "_C" if dots else "_C_AVX512" if wide else "_C_AVX2"
    spec = importlib.util.find_spec("vllm")  # found, not imported: its Python side needs much more
    assert spec is not None and spec.origin is not None
    torch.ops.load_library(str(Path(spec.origin).parent / f"{name}.abi3.so"))


_load()
vllm = torch.ops._C


def bf16(weight: np.ndarray) -> Peer:
    w = tensor(weight).bfloat16()
    handler = torch.tensor(vllm.create_onednn_mm_handler(w.t(), CACHED_PRIMITIVES))

    def call(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(
            len(x), len(w), dtype=x.dtype
        )  # w is named here, and so kept: the handler has its address
        vllm.onednn_mm(y, x, None, handler)
        return y

    return peer(w.nbytes, call)


def int8_onednn(weight: np.ndarray) -> Peer:
    """oneDNN's INT8 product behind vLLM's quantization of each token."""
    codes, scale = int8(tensor(weight))
    kept = codes, scale.contiguous()  # the handler has their addresses
    handler = torch.tensor(
        vllm.create_onednn_scaled_mm_handler(
            codes.t(), kept[1], torch.bfloat16, True, False, CACHED_PRIMITIVES
        )
    )

    def call(x: torch.Tensor) -> torch.Tensor:
        quantized, token = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x), 1)
        vllm.dynamic_scaled_int8_quant(quantized, x, token, None)
        y = torch.empty(len(x), len(kept[0]), dtype=x.dtype)
        vllm.onednn_scaled_mm(y, quantized, token, None, None, None, handler)
        return y

    return peer(codes.nbytes, call)


def w4a16(weight: np.ndarray) -> Peer:
    """4-bit weights in blocks of 16 outputs, 8 codes to a word along the outputs."""
    n, k = weight.shape
    codes, scale = int4(tensor(weight))
    columns = (codes.to(torch.int32) + 8).t()  # (K, N)
    words = torch.zeros(k, n // 8, dtype=torch.int32)
    for i in range(8):
        words |= columns[:, i::8] << 4 * i
    packed = words.view(k, -1, 2).permute(1, 0, 2).reshape(-1, 2 * k).contiguous()
    by_group = scale.t().contiguous().bfloat16()

    def call(x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(len(x), n, dtype=x.dtype)
        vllm.cpu_gemm_wna16(x, packed, y, by_group, None, None, 8, "vec")
        return y

    return peer(packed.nbytes + by_group.nbytes, call)


PEERS = {"vllm_bf16": bf16, "vllm_int8": int8_onednn}
if hasattr(vllm, "cpu_gemm_wna16"):  # its AVX2 library has none
    PEERS["vllm_w4a16"] = w4a16
