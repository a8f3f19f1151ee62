# SPDX-License-Identifier: Apache-2.0
"""SmoothQuant (Xiao et al., arXiv 2211.10438): channels that are hard to quantize are divided by a factor,
and the weights that read them multiplied by it. What comes out is the same, and both sides quantize well.

    s_j = (high_j - low_j)^strength / (2 max |W_j|)^(1 - strength)        over every layer that reads channel
    j

Folding writes s into what makes the channel (a norm's gain, the rows of a linear layer), so that nothing is
left at run time. A gain is rounded to the model's dtype when it is divided; the readers are multiplied by
what was really folded, gain / new gain, and the Hessian of their input is rescaled by the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pennyweight import ops


def scales(low: Tensor, high: Tensor, weights: Sequence[Tensor], strength: float) -> Tensor:
    """Return the smoothing factors of the channels that some layers read.

    Args:
        low, high: (K,) float32, the smallest and the largest activation of each channel.
        weights: Weights (N, K) of all layers that read them.
        strength: Between 0 (all difficulty stays with the activations) and 1 (all moves to the weights).
    Returns:
        (K,) float32, at least 1e-5; 1 for channels that are never used.
    """
    largest = torch.stack([ops.column_abs_max(weight.contiguous()) for weight in weights]).amax(0)
    return ops.smooth_scales(low, high, largest, strength)


def fold_gain(gain: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Divide a norm's gain.

    Args:
        gain: (K,) in the model's dtype.
        scale: (K,) float32.
    Returns:
        The new gain, rounded to its dtype, and new / old (K,) float32, by which the activations really
        changed. Channels whose new gain would be zero, infinite or undefined keep the old one.
    """
    old = gain.float()
    new = (old / scale).to(gain.dtype)
    bad = ~torch.isfinite(new) | (new == 0)
    new = torch.where(bad, gain, new)
    return new, torch.where(bad, 1.0, new.float() / old)


def rescale_hessian(hessian: Tensor, ratio: Tensor) -> None:
    """Make H = X^T X, in place, that of activations multiplied by `ratio` (K,)."""
    hessian.mul_(ratio[:, None]).mul_(ratio[None, :])
