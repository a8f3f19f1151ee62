# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of the four families, and their states."""

from __future__ import annotations

from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES = ["Llama", "Qwen2", "Qwen3", "Mistral"]
VOCABULARY = int(SIZES["vocab_size"])


def build(family: str, dtype: torch.dtype = torch.float32, **changes: Any) -> torch.nn.Module:
    """Build a random model; its norms' gains differ from 1, as a trained model's do."""
    torch.manual_seed(0)
    sizes = {**SIZES, **changes}
    if family == "Mistral":
        sizes.setdefault("sliding_window", 16)
    config = getattr(transformers, f"{family}Config")(**sizes)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.15)
    return model.to(dtype)


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's tensors by name, copied."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Tell whether two states hold the same names and the same bits."""

    def bits(t: torch.Tensor) -> torch.Tensor:
        return t.contiguous().view(torch.uint8) if t.dim() else t

    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(bits(a[k]), bits(b[k])) for k in a
    )
