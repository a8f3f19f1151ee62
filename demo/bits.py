# SPDX-License-Identifier: Apache-2.0
"""How well a model predicts text, in bits per byte."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH = 8


@torch.inference_mode()
def bits_per_byte(model: PreTrainedModel, ids: torch.Tensor, size: int, length: int = 512) -> float:
    """Measure a model in its own precision.

    The stream is cut into windows of `length` tokens; each token but the
    stream's first is predicted once, from those before it in its window.

    Args:
        model: A causal language model.
        ids: The token stream, int64 [tokens].
        size: Bytes of the text that the stream encodes.
        length: Tokens of a window.

    Returns:
        Bits of all predicted tokens, markers included, per byte of text.
    """
    whole = (len(ids) - 1) // length * length
    inputs = list(ids[:whole].view(-1, length).split(BATCH))
    targets = list(ids[1 : whole + 1].view(-1, length).split(BATCH))
    if whole < len(ids) - 1:
        inputs.append(ids[whole:-1][None])
        targets.append(ids[whole + 1 :][None])
    nats = 0.0
    for window, target in zip(inputs, targets, strict=True):
        logits = model(input_ids=window, use_cache=False).logits.float()
        nats += float(cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum"))
    return nats / math.log(2) / size
