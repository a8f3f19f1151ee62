# SPDX-License-Identifier: Apache-2.0
"""Tiny models whose weights are the same numbers in every version of every library.

Weights come from integer hashing, not from a random generator: the fixtures that llm-compressor wrote
were made from `tiny_model("llama")` and the tests build the same weights again to compare scales.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

SIZES = {
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def hashed_normal(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers that look normal with deviation 1: sums of four hashed 16-bit integers, float32."""
    with np.errstate(over="ignore"):
        z = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 24)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    parts = z.view(np.uint16).astype(np.int64).reshape(-1, 4).sum(axis=1)  # each term uniform on 0..65535
    return torch.from_numpy((parts - 2 * 65535) / 37837.0).float().reshape(shape)  # 65536 · sqrt(4 / 12)


def fill(model: torch.nn.Module) -> None:
    """Replace every parameter: norms near 1, small biases, matrices with deviation 1/sqrt(K) and outliers."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = hashed_normal(name, tuple(parameter.shape))
            if "norm" in name:
                values = 1 + 0.1 * values
            elif name.endswith("bias"):
                values = 0.1 * values
            else:
                values = values / parameter.shape[-1] ** 0.5
                values.view(-1)[::997] *= 4
            parameter.copy_(values)


def tiny_model(
    family: str = "llama", *, dtype: torch.dtype = torch.bfloat16, tied: bool = False
) -> torch.nn.Module:
    """A model of transformers' class ``family`` (llama, qwen2, qwen3, mistral) with `SIZES`, in eval mode."""
    import transformers

    names = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "mistral": "Mistral"}
    config_class = getattr(transformers, names[family] + "Config")
    config = config_class(
        **SIZES, tie_word_embeddings=tied, pad_token_id=None, bos_token_id=1, eos_token_id=2
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    fill(model)
    return model.eval()


def tiny_ids(rows: int, length: int) -> torch.Tensor:
    """Token ids (rows, length), int64, from the same hash."""
    return (hashed_normal("ids", (rows, length)).abs() * 90).long() % SIZES["vocab_size"]
