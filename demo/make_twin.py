# SPDX-License-Identifier: Apache-2.0
"""Give a Llama model activation outliers without changing what it computes.

Large models grow a few channels with activations tens of times the rest; the
demo model is too small to. Its twin gets them by hand: a norm's gain is
multiplied by a power of two in four channels, and the columns that read those
channels are divided by it. Both are exact, in bfloat16 too.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

FACTORS = (32.0, 64.0, 64.0, 32.0)


def outlier_channels(gain: torch.Tensor) -> torch.Tensor:
    """Choose the channels of the four largest gains: int64 [4].

    They are the loudest already, as in large models, and finding them needs
    no data. Channels of equal gain are taken in order.
    """
    order = torch.sort(gain.abs().float(), descending=True, stable=True).indices
    return order[: len(FACTORS)]


def _move(norm: torch.nn.Module, readers: list[torch.nn.Linear]) -> None:
    channels = outlier_channels(norm.weight)
    factors = torch.tensor(FACTORS, dtype=norm.weight.dtype, device=norm.weight.device)
    norm.weight[channels] *= factors
    for reader in readers:
        before = reader.weight[:, channels]
        after = before / factors
        if not torch.equal(after * factors, before):
            raise ValueError("a weight is too small to be divided exactly")
        reader.weight[:, channels] = after


@torch.no_grad()
def make_twin(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return a copy of a model with outliers after each block's two norms.

    Args:
        model: A Llama model; left as it is.

    Returns:
        A model with the same outputs, bit for bit, up to the order of sums.

    Raises:
        ValueError: If a weight would underflow.
    """
    twin = copy.deepcopy(model)
    for block in twin.model.layers:
        attention, mlp = block.self_attn, block.mlp
        _move(block.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj])
        _move(block.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj])
    return twin


def main() -> None:
    """Write the twin of a saved model, with its tokenizer."""
    parser = argparse.ArgumentParser(description="write a model's twin with outliers")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model"))
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype="auto")
    make_twin(model).save_pretrained(options.out)
    AutoTokenizer.from_pretrained(options.model).save_pretrained(options.out)


if __name__ == "__main__":
    main()
