# SPDX-License-Identifier: Apache-2.0
"""zentorch: AMD's linear layers for torch."""

from __future__ import annotations

import numpy as np
import torch
import zentorch  # noqa: F401  (registers its ops)
from with_torch import int4, int8, peer, start, tensor
from worker import Peer

__all__ = ["PEERS", "start"]
zen = torch.ops.zentorch


def bf16(weight: np.ndarray) -> Peer:
    packed = zen.zentorch_weight_prepack_for_linear(tensor(weight).bfloat16())
    call = lambda x: zen.zentorch_linear_unary(x, packed, None, is_weight_prepacked=True)  # noqa: E731
    return peer(2 * weight.size, call)


def int8_dyn(weight: np.ndarray) -> Peer:
    codes, scale = int8(tensor(weight))
    column = scale.flatten().bfloat16()
    return peer(codes.nbytes, lambda x: zen.zentorch_dynamic_qlinear(x, codes, column, None))


def da8w4(weight: np.ndarray) -> Peer:
    """4-bit weights, activations quantized to INT8."""
    codes, scale = int4(tensor(weight))
    packed = zen.zentorch_woq_repack_weight(codes).view(torch.int8)
    by_group = scale.t().contiguous().bfloat16()
    call = lambda x: zen.zentorch_dynamic_qlinear(x, packed, by_group, None)  # noqa: E731
    return peer(codes.numel() // 2 + by_group.nbytes, call)


def woq(weight: np.ndarray) -> Peer:
    """4-bit weights, activations bfloat16."""
    codes, scale = int4(tensor(weight))
    packed = zen.zentorch_woq_repack_weight(codes).t()
    by_group = scale.t().contiguous().bfloat16()
    call = lambda x: zen.zentorch_woq_linear(x, packed, by_group, None, None)  # noqa: E731
    return peer(codes.numel() // 2 + by_group.nbytes, call)


PEERS = {"zentorch_bf16": bf16, "zentorch_int8_dyn": int8_dyn, "zentorch_da8w4": da8w4, "zentorch_woq": woq}
