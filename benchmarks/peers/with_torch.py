# SPDX-License-Identifier: Apache-2.0
"""What the runtimes that are built on torch share: codes of a weight, and tensors in and out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from worker import Peer

GROUP = 128


def start(threads: int) -> None:
    """Use so many threads."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)


def tensor(weight: np.ndarray) -> Tensor:
    """Return a weight as torch's, float32."""
    return torch.from_numpy(np.asarray(weight))


def peer(bytes_: int, call: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.bfloat16) -> Peer:
    """Make a peer of a call whose activations are of a dtype."""
    take = lambda x: torch.from_numpy(x).to(dtype).contiguous()  # noqa: E731
    return Peer(bytes_, take, call, lambda y: y.float().numpy(), lambda x: x.sum())


def int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize by channel: codes (N, K) int8, scales (N, 1) float32."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round_().clamp_(-127, 127).to(torch.int8), scale


def int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize by group: codes -8..7 (N, K) int8, scales (N, K / 128) float32."""
    groups = weight.view(len(weight), -1, GROUP)
    scale = groups.abs().amax(2) / 7.5
    codes = (groups / scale[..., None]).round_().clamp_(-8, 7).to(torch.int8)
    return codes.view(weight.shape), scale
