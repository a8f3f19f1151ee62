# SPDX-License-Identifier: Apache-2.0
"""The demo model's shape and the numbers of its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Positions the model has; windows of 512 are the longest it was trained on.
POSITIONS = 2048
#: Tokens of a step, the window lengths before and in the decay.
TOKENS, SHORT, LONG = 4096, 256, 512
#: Peak learning rate, steps to reach it, share of the steps to leave it.
PEAK, WARM, DECAY = 3e-3, 100, 0.35


def build_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Build the untrained model: 3.7 million parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def build_optimizer(model: LlamaForCausalLM) -> torch.optim.AdamW:
    """Return AdamW that decays the matrices and leaves the norms alone."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


def schedule(step: int, steps: int) -> tuple[float, int]:
    """Return a step's learning rate and window length.

    The rate rises, stays, and falls in a straight line to zero, so that what
    was learned before the fall does not depend on `steps`.
    """
    left = (steps - step) / (DECAY * steps)
    return PEAK * min(1.0, (step + 1) / WARM, left), SHORT if left > 1 else LONG


def batch(stream: torch.Tensor, step: int, length: int) -> torch.Tensor:
    """Draw a step's windows: int64 [TOKENS / length, length + 1]."""
    random = torch.Generator().manual_seed(step)
    starts = torch.randint(len(stream) - length, (TOKENS // length,), generator=random)
    return torch.stack([stream[start : start + length + 1] for start in starts.tolist()])
