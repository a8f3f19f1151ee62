# SPDX-License-Identifier: Apache-2.0
"""SmoothQuant: what it folds, and what that is worth where activations have outliers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, same_state, state
from torch import nn

import pennyweight as pw
from pennyweight.calibration.smoothing import norms_of, smooth_block
from pennyweight.calibration.walk import block_inputs, gather
from pennyweight.swap import decoder_blocks


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits in float64."""
    return model(input_ids=ids, use_cache=False).logits.double()


def add_outliers(model: Any) -> None:
    """Make a few channels loud by powers of two, and their readers deaf by as much: the same model."""
    factors = torch.ones(64)
    factors[[3, 17, 40, 61]] = torch.tensor([32.0, 64.0, 64.0, 32.0])
    with torch.no_grad():
        for block in model.model.layers:
            attention, mlp = block.self_attn, block.mlp
            readers = {
                block.input_layernorm: (attention.q_proj, attention.k_proj, attention.v_proj),
                block.post_attention_layernorm: (mlp.gate_proj, mlp.up_proj),
            }
            for norm, linears in readers.items():
                norm.weight.mul_(factors)
                for linear in linears:
                    linear.weight.div_(factors)


def statistics(model: Any, ids: torch.Tensor) -> tuple[Any, Any, Any]:
    """Block 0, its batches, and what its layers read."""
    _, blocks = decoder_blocks(model)
    with torch.no_grad():
        batches = block_inputs(model, blocks, ids)
        names = {m: n for n, m in blocks[0].named_modules() if isinstance(m, nn.Linear)}
        inputs = gather(blocks[0], "b", 0, batches, names, norms_of(blocks[0]), hessian=True, ranges=True)
    return blocks[0], batches, inputs


def set_tensor(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    module.get_parameter(name).data = tensor


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_read_one_tensor_share_their_inputs(
    family: str, make_model: Any, ids: torch.Tensor
) -> None:
    _, _, inputs = statistics(make_model(family), ids)
    readers = {tuple(i.readers): i.producer for i in inputs.values()}
    assert readers == {
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"): "input_layernorm",
        ("self_attn.o_proj",): None,
        ("mlp.gate_proj", "mlp.up_proj"): "post_attention_layernorm",
        ("mlp.down_proj",): None,
    }
    assert all(i.tokens == ids.numel() for i in inputs.values())


def test_shared_hessians_are_those_of_each_layer_alone(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model()
    _, blocks = decoder_blocks(model)
    _, batches, shared = statistics(model, ids)
    for name in ("self_attn.v_proj", "mlp.up_proj"):
        layer = blocks[0].get_submodule(name)
        with torch.no_grad():
            alone = gather(blocks[0], "b", 0, batches, {layer: name}, {}, hessian=True, ranges=True)[name]
        assert torch.equal(alone.hessian, shared[name].hessian)
        assert torch.equal(alone.low, shared[name].low) and torch.equal(alone.high, shared[name].high)


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_keeps_what_a_block_computes_and_rescales_hessians(
    family: str, make_model: Any, ids: torch.Tensor
) -> None:
    extra = {"mlp_bias": True, "attention_bias": True} if family == "Llama" else {}
    model = make_model(family, torch.bfloat16, **extra)
    before = logits(model.float(), ids)
    block, batches, inputs = statistics(model, ids)
    with torch.no_grad():
        smooth_block(block, 0, "b", inputs, set(inputs), 0.8, batches[0], set_tensor)
    after = logits(model, ids)
    # In float32 only the folded tensors are rounded anew: 2^-24 each, amplified by two random blocks.
    assert float((after - before).norm() / before.norm()) < 1e-4
    _, _, again = statistics(model, ids)
    for name, seen in inputs.items():
        ours, expected = seen.hessian.tril(), again[name].hessian.tril()
        assert float((ours - expected).norm() / expected.norm()) < 1e-4, name


def test_smoothquant_makes_outliers_harmless(make_model: Any, ids: torch.Tensor) -> None:
    errors = {}
    for strength in (None, 0.8):
        model = make_model("Llama", torch.bfloat16)
        add_outliers(model)
        before = logits(model, ids)
        pw.quantize(model, pw.Recipe("W8A8-INT", smoothquant=strength), ids, progress=False)
        errors[strength] = float((logits(model, ids) - before).norm() / before.norm())
    assert errors[0.8] < errors[None] / 4


def test_smoothquant_spares_layers_that_are_ignored(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model("Llama", torch.float32)
    before = logits(model, ids)
    gain = model.model.layers[0].input_layernorm.weight.clone()
    ignore = ["re:.*self_attn", "re:.*k_proj"]
    pw.quantize(model, pw.Recipe("W8A8-INT", smoothquant=True, ignore=ignore), ids, progress=False)
    assert torch.equal(model.model.layers[0].input_layernorm.weight, gain), "nobody reads it quantized"
    some = make_model("Llama", torch.float32)
    recipe = pw.Recipe("W8A8-INT", smoothquant=True, ignore=["re:.*(v|o|gate|up|down)_proj"])
    pw.quantize(some, recipe, ids, progress=False)
    assert not torch.equal(some.model.layers[0].input_layernorm.weight, gain)
    assert float((logits(some, ids) - before).norm() / before.norm()) < 0.1


def test_smoothquant_refuses_a_norm_that_is_no_gain(make_model: Any, ids: torch.Tensor) -> None:
    class OnePlus(nn.Module):
        """A gain that is stored less one, as Gemma does."""

        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight - 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)

    model = make_model()
    block = model.model.layers[1]
    block.input_layernorm = OnePlus(block.input_layernorm.weight.detach())
    before = state(model)
    with pytest.raises(pw.UnsupportedError, match=r"folding changes what model.layers.1 computes"):
        pw.quantize(model, pw.Recipe("W8A8-INT", smoothquant=True), ids, progress=False)
    assert same_state(state(model), before)
