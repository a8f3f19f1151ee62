# SPDX-License-Identifier: Apache-2.0
"""Quantized layers of every kind, from random tensors in the checkpoint's layout."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import pennyweight as pw
from pennyweight import ops

N, K = 70, 128


@dataclass
class Case:
    """A scheme, its tensors in the checkpoint's layout, and the layer made of them."""

    scheme: pw.Scheme
    tensors: dict[str, Tensor]
    bias: Tensor | None

    def layer(self) -> pw.QuantizedLinear:
        return pw.QuantizedLinear.from_tensors(
            self.tensors, scheme=self.scheme, in_features=K, out_features=N, bias=self.bias
        )

    def x(self, *lead: int) -> Tensor:
        return torch.randn(*lead, K).to(self.tensors["weight_scale"].dtype)


_W4 = pw.scheme("W4A16-INT")
SCHEMES = {
    "fp8": pw.scheme("W8A8-FP"),
    "int8": pw.scheme("W8A8-INT"),
    "int4-g128": _W4,
    "int4-g64": replace(_W4, group_size=64),
    "int4-g32-zero-points": replace(_W4, group_size=32, symmetric=False),
    "int4-channel": replace(_W4, group_size=-1),
    "int4-channel-zero-points": replace(_W4, group_size=-1, symmetric=False),
}
IDS = list(SCHEMES)


def make(name: str, dtype: torch.dtype = torch.bfloat16, bias: bool = True, seed: int = 0) -> Case:
    """The case of this name; ``dtype`` is that of scales, bias and x."""
    torch.manual_seed(seed)
    scheme = SCHEMES[name]
    groups = 1 if scheme.group_size == -1 else K // scheme.group_size
    tensors = {"weight_scale": (torch.rand(N, groups) * 0.01 + 0.001).to(dtype)}
    if scheme.weight == "int4":
        tensors["weight_packed"] = ops.pack_nibbles(torch.randint(-8, 8, (N, K), dtype=torch.int8))
        tensors["weight_shape"] = torch.tensor([N, K])
        if not scheme.symmetric:
            zeros = torch.randint(-8, 8, (groups, N), dtype=torch.int8)
            tensors["weight_zero_point"] = ops.pack_nibbles(zeros).T.contiguous()
    elif scheme.weight == "int8":
        tensors["weight"] = torch.randint(-128, 128, (N, K), dtype=torch.int8)
    else:
        tensors["weight"] = torch.randn(N, K).to(torch.float8_e4m3fn)
    return Case(scheme, tensors, torch.randn(N).to(dtype) if bias else None)
