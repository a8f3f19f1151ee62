# SPDX-License-Identifier: Apache-2.0
"""`fuse=True`: the fused ops that a decoder layer uses, put in place of its parts.

joint.py      layers that read the same rows, as one weight
block.py      the forward pass of a fused block
decode.py     its attention while one token per sequence is decoded
structure.py  whether a block is one that can be fused, by watching it
"""

from __future__ import annotations

from torch import nn

from pennyweight.errors import UnsupportedError
from pennyweight.fuse.block import Call, FusedBlock, fuse_block
from pennyweight.fuse.structure import examine
from pennyweight.swap import decoder_blocks

__all__ = ["Call", "FusedBlock", "fuse_model", "unfused"]

_UNFUSED = "pennyweight_unfused"


def fuse_model(model: nn.Module) -> dict[str, str]:
    """Fuse a quantized model's decoder blocks, in place.

    q, k and v become one call, gate and up another; with 8-bit weights the residual, RMSNorm and quantization
    before them are one call, and so are SiLU, its product and the quantization before down. Module names,
    state dict and what `save` writes stay what they were. The model runs once, on three tokens.

    Args:
        model: A quantized model whose forward takes `input_ids`.
    Returns:
        What was left unfused, by its name in the model, with the reason; `explain` shows it too.
    Raises:
        UnsupportedError: The model is fused already, or has no decoder blocks.
    """
    if any(isinstance(module, FusedBlock) for module in model.modules()):
        raise UnsupportedError("fuse: the model is fused already")
    prefix, blocks = decoder_blocks(model)
    reasons = {}
    for i, (block, found) in enumerate(zip(blocks, examine(model, blocks), strict=True)):
        if found.fusion.attention or found.fusion.mlp:
            fuse_block(block, found.fusion)
        for part, reason in found.reasons.items():
            reasons[f"{prefix}.{i}.{part}".removesuffix(".")] = reason
    setattr(model, _UNFUSED, reasons)
    return reasons


def unfused(model: nn.Module) -> dict[str, str]:
    """What `fuse_model` left unfused, with the reasons; empty where it was not asked."""
    reasons: dict[str, str] = getattr(model, _UNFUSED, {})
    return reasons
