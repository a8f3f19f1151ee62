# SPDX-License-Identifier: Apache-2.0
"""Fused ops against the unfused: same bits from the normed row on, codes counted before it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fused import EIGHT_BITS, QUANTIZE, RECIPES, Count
from torch import Tensor, nn
from torch.nn import functional

import pennyweight as pw
from pennyweight.fuse.joint import Part, join, joint_bias
from pennyweight.quantize_layer import quantize_layer

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
DEMO = Path(__file__).parents[2] / "demo" / "model"
SIZES = [(128, 32, 32), (96, 100, 65), (1, 64, 3)]  # outputs of three layers, whole panels and not


def linears(scheme: str, sizes: tuple[int, ...], dtype: torch.dtype, bias: bool) -> list[pw.QuantizedLinear]:
    plain = [nn.Linear(64, n, bias=bias, dtype=dtype) for n in sizes]
    return [quantize_layer(layer, RECIPES[scheme], None).layer for layer in plain]


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scheme", RECIPES)
def test_joint_layer_gives_the_layers_bits(scheme: str, dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    for sizes in SIZES:
        layers = linears(scheme, sizes, dtype, bias)
        joint, parts = join(layers)
        assert joint.out_features % 64 == 0 and joint.state_dict() == {}
        for rows in (1, 5, 70):
            x = torch.randn(2, rows, 64, dtype=dtype)
            outs = [joint.linear(x, joint_bias(parts))]
            if scheme in EIGHT_BITS:
                codes, scale = QUANTIZE[EIGHT_BITS[scheme]](x)
                outs.append(joint.on_codes(codes, scale, joint_bias(parts), dtype))
            for out in outs:
                for layer, part in zip(layers, parts, strict=True):
                    assert torch.equal(part(out), layer(x))


@pytest.mark.parametrize("scheme", RECIPES)
def test_parts_hold_what_the_layers_held(scheme: str) -> None:
    for sizes in SIZES:
        layers = linears(scheme, sizes, torch.bfloat16, bias=True)
        for layer, part in zip(layers, join(layers)[1], strict=True):
            assert torch.equal(part.dequantize(), layer.dequantize())
            state, want = part.state_dict(), layer.state_dict()
            assert state.keys() == want.keys()
            assert all(state[k].dtype == want[k].dtype and torch.equal(state[k], want[k]) for k in want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", QUANTIZE)
def test_codes_of_the_fused_norm_differ_at_most_1_in_10000(kind: str, dtype: torch.dtype) -> None:
    fused = {"fp8": pw.ops.rms_norm_quantize_fp8, "int8": pw.ops.rms_norm_quantize_int8}[kind]
    torch.manual_seed(0)
    count = Count()
    for rows, k in ((400, 2048), (700, 1000), (40, 8192)):
        x, residual = torch.randn(2, rows, k).mul(3).to(dtype)
        weight = (1 + torch.randn(k) / 4).to(dtype)
        codes, _, hidden = fused(x, weight, 1e-5, residual)
        assert torch.equal(hidden, residual + x)
        normed, again = pw.ops.rms_norm(x, weight, 1e-5, residual)
        assert torch.equal(again, hidden) and torch.equal(QUANTIZE[kind](normed)[0], codes)
        count.add(codes, QUANTIZE[kind](rms_norm(residual + x, weight, 1e-5))[0])
        count.add(fused(x, weight, 1e-6)[0], QUANTIZE[kind](rms_norm(x, weight, 1e-6))[0])
    count.check(3_000_000)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As transformers computes it."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", QUANTIZE)
def test_codes_of_the_fused_silu_differ_at_most_1_in_10000(kind: str, dtype: torch.dtype) -> None:
    fused = {"fp8": pw.ops.silu_mul_quantize_fp8, "int8": pw.ops.silu_mul_quantize_int8}[kind]
    torch.manual_seed(0)
    count = Count()
    for rows, k in ((300, 4096), (900, 1000)):
        gate_up = torch.randn(rows, 2 * k).mul(3).to(dtype)
        want = functional.silu(gate_up[:, :k]) * gate_up[:, k:]
        count.add(fused(gate_up)[0], QUANTIZE[kind](want)[0])
    count.check(2_000_000)


@pytest.mark.parametrize("scheme", EIGHT_BITS)
def test_codes_of_the_fused_demo_model_differ_at_most_1_in_10000(scheme: str) -> None:
    """Each fused call on what the unfused model has at its place."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(DEMO, dtype="auto", local_files_only=True)
    pw.quantize(model, RECIPES[scheme], progress=False)
    kind, count = EIGHT_BITS[scheme], Count()
    norm = {"fp8": pw.ops.rms_norm_quantize_fp8, "int8": pw.ops.rms_norm_quantize_int8}[kind]
    silu = {"fp8": pw.ops.silu_mul_quantize_fp8, "int8": pw.ops.silu_mul_quantize_int8}[kind]
    seen: dict[str, Any] = {}

    def record(name: str, _: nn.Module, args: Any, output: Any) -> None:
        seen[name] = args[0] if args else None, output

    for i, block in enumerate(model.model.layers):
        for name, module in block.named_modules(prefix=str(i)):
            module.register_forward_hook(partial(record, name))
    with torch.no_grad():
        model(torch.randint(2048, (4, 200), generator=torch.Generator().manual_seed(0)))
    for i, block in enumerate(model.model.layers):
        (x, first), (_, (attended, _)) = seen[f"{i}.input_layernorm"], seen[f"{i}.self_attn"]
        _, second = seen[f"{i}.post_attention_layernorm"]
        one, two = block.input_layernorm, block.post_attention_layernorm
        count.add(norm(x, one.weight, one.variance_epsilon)[0], QUANTIZE[kind](first)[0])
        count.add(norm(attended, two.weight, two.variance_epsilon, x)[0], QUANTIZE[kind](second)[0])
        gate_up = torch.cat([seen[f"{i}.mlp.{name}_proj"][1] for name in ("gate", "up")], -1)
        count.add(silu(gate_up)[0], QUANTIZE[kind](seen[f"{i}.mlp.down_proj"][0])[0])
    count.check(4_000_000)


def test_a_part_called_alone_says_what_it_takes() -> None:
    part = join(linears("W8A8-INT", (64, 64), torch.float32, bias=False))[1][1]
    assert isinstance(part, Part)
    with pytest.raises(pw.ShapeError, match=r"takes their joint output \(\.\.\., 128\); got \[3, 64\]; load"):
        part(torch.zeros(3, 64))
