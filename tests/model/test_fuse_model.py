# SPDX-License-Identifier: Apache-2.0
"""Fused models are drop-ins: generation, compilation, threads, copies, state dicts, what is saved."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, same_state, state
from fused import RECIPES, assert_alike, greedy, pair
from torch import nn

import pennyweight as pw
from pennyweight import _C, linear_bf16
from pennyweight.fuse import FusedBlock, fuse_model

CASES = [
    ("W8A8-FP", "Llama"),
    ("W8A8-INT", "Qwen2"),
    ("W4A16-INT", "Qwen3"),
    ("W8A8-FP", "Mistral"),
    ("W4A16-INT", "Qwen2"),
]


def logits(model: Any, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=ids, use_cache=False, **kwargs).logits
    return out


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", RECIPES)
def test_fused_model_answers_as_the_unfused_one(
    scheme: str, family: str, make_model: Any, ids: torch.Tensor
) -> None:
    model, fused = pair(make_model, scheme, family, intermediate_size=96)
    assert all(isinstance(block, FusedBlock) for block in fused.model.layers)
    assert torch.equal(greedy(fused, ids[:3]), greedy(model, ids[:3]))
    assert_alike(logits(fused, ids), logits(model, ids))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_fused_model_generates_with_every_cache(
    cache: str, attention: str, make_model: Any, ids: torch.Tensor
) -> None:
    model, fused = pair(make_model, "W8A8-INT", "Qwen3")
    for each in (model, fused):
        each.set_attn_implementation(attention)
    kwargs = {"cache_implementation": "static", "disable_compile": True} if cache == "static" else {}
    assert torch.equal(greedy(fused, ids[:2], **kwargs), greedy(model, ids[:2], **kwargs))


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_model_gives_hidden_states_and_attentions(
    family: str, make_model: Any, ids: torch.Tensor
) -> None:
    model, fused = pair(make_model, "W4A16-INT", family)
    outs = []
    for each in (model, fused):
        each.set_attn_implementation("eager")
        with torch.no_grad():
            outs.append(each(input_ids=ids, output_hidden_states=True, output_attentions=True))
    for name in ("hidden_states", "attentions"):
        want, got = outs[0][name], outs[1][name]
        assert len(got) == len(want) >= 2
        assert all(torch.allclose(g, w, atol=1e-5) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize(("scheme", "family"), [*zip(RECIPES, FAMILIES, strict=False)])
def test_fused_model_compiles_to_one_graph(
    scheme: str, family: str, make_model: Any, ids: torch.Tensor
) -> None:
    _, fused = pair(make_model, scheme, family, intermediate_size=96)
    torch._dynamo.reset()
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    assert torch.equal(logits(compiled, ids), logits(fused, ids))


def test_python_threads_share_a_fused_model(make_model: Any) -> None:
    _, fused = pair(make_model, "W8A8-FP", "Qwen2")
    prompts = [torch.randint(97, (1, 5 + i), generator=torch.Generator().manual_seed(i)) for i in range(12)]
    want = [logits(fused, prompt) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for got, expected in zip(pool.map(lambda p: logits(fused, p), prompts), want, strict=True):
                assert torch.equal(got, expected)


@pytest.mark.parametrize("scheme", RECIPES)
def test_copies_of_a_fused_model_stand_alone(scheme: str, make_model: Any, ids: torch.Tensor) -> None:
    _, fused = pair(make_model, scheme, "Qwen2")
    want = logits(fused, ids)
    for other in (copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        assert torch.equal(logits(other, ids), want)
        assert isinstance(other.model.layers[0], FusedBlock)
        assert isinstance(other.model.layers[0], type(make_model("Qwen2").model.layers[0]))
        other.model.layers[0].joint_qkv.packed.zero_()
        assert not torch.equal(logits(other, ids), want)
        assert not other.model.layers[0].self_attn.k_proj.dequantize().count_nonzero() or scheme != "W8A8-FP"
    assert torch.equal(logits(fused, ids), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scheme", RECIPES)
def test_fused_model_changes_its_dtype(
    scheme: str, dtype: torch.dtype, make_model: Any, ids: torch.Tensor
) -> None:
    model, fused = pair(make_model, scheme, "Qwen2")
    before = state(fused)
    got, want = logits(fused.to(dtype), ids), logits(model.to(dtype), ids)
    assert got.dtype == dtype
    assert ((got - want).abs() > 0.02 * want.abs().max()).float().mean() < 0.05
    name = "model.layers.0.mlp.up_proj.weight_scale"
    assert torch.equal(fused.state_dict()[name], before[name])


@pytest.mark.parametrize(("scheme", "family"), CASES)
def test_state_dict_is_the_unfused_one_and_loads(
    scheme: str, family: str, make_model: Any, ids: torch.Tensor
) -> None:
    model, fused = pair(make_model, scheme, family, intermediate_size=96)
    assert list(fused.state_dict()) == list(model.state_dict())
    assert same_state(state(fused), state(model))
    other = make_model(family, intermediate_size=96)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
    pw.quantize(other, RECIPES[scheme], progress=False)
    fused.load_state_dict(other.state_dict())
    assert same_state(state(fused), state(other))
    empty = copy.deepcopy(fused.model.layers).to("meta")
    empty.load_state_dict(fused.model.layers.state_dict(), assign=True)
    for block, loaded in zip(fused.model.layers, empty, strict=True):
        assert torch.equal(loaded.joint_qkv.packed, block.joint_qkv.packed)
        assert same_state(state(loaded), state(block))


@pytest.mark.parametrize(("scheme", "family"), CASES)
def test_saved_files_are_those_of_the_unfused_model(
    scheme: str, family: str, make_model: Any, tmp_path: Path, ids: torch.Tensor
) -> None:
    model, fused = pair(make_model, scheme, family, torch.bfloat16, intermediate_size=96)
    folders = [pw.save(model, tmp_path / "unfused"), pw.save(fused, tmp_path / "fused")]
    files = [{f.name: f.read_bytes() for f in folder.iterdir()} for folder in folders]
    assert files[0] == files[1] and "model.safetensors" in files[0]
    loaded, other = pw.load(folders[1], fuse=True), pw.load(folders[0])
    fuse_model(other)
    linear_bf16.place(other)
    assert torch.equal(logits(loaded, ids), logits(other, ids))
    assert pw.explain(loaded).fused == ["model.layers.0", "model.layers.1"]


def test_transformers_model_is_accelerated_and_fused(
    make_model: Any, tmp_path: Path, ids: torch.Tensor
) -> None:
    from transformers import AutoModelForCausalLM

    model, _ = pair(make_model, "W8A8-INT", "Llama", torch.bfloat16)
    folder = pw.save(model, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert torch.equal(logits(pw.accelerate(theirs, fuse=True), ids), logits(pw.load(folder, fuse=True), ids))
    assert pw.explain(theirs).fused and not pw.explain(theirs).unfused


def test_explain_shows_what_is_called(make_model: Any, ids: torch.Tensor) -> None:
    _, fused = pair(make_model, "W8A8-INT", "Llama")
    found = pw.explain(fused)
    seen = {(g.before, g.op): (len(g.layers), g.shapes) for g in found.groups}
    assert seen == {
        ("rms_norm_quantize_int8", "gemm_w8a8_int8"): (10, [(192, 64), (256, 64)]),
        ("silu_mul_quantize_int8", "gemm_w8a8_int8"): (2, [(64, 128)]),
        (None, "linear_w8a8_int8"): (2, [(64, 64)]),
    }
    assert "rms_norm_quantize_int8 > gemm_w8a8_int8" in str(found)
    assert "fused: model.layers.0, model.layers.1" in str(found)
    before = {op: sum(_C.run_counts(op).values()) for op in _C.ops()}
    logits(fused, ids)
    ran = {op: sum(_C.run_counts(op).values()) - count for op, count in before.items()}
    assert {op: count for op, count in ran.items() if count} == {
        "rms_norm_quantize_int8": 4,
        "silu_mul_quantize_int8": 2,
        "gemm_w8a8_int8": 6,
        "linear_w8a8_int8": 2,
    }


def test_four_bit_blocks_are_two_calls_shorter(make_model: Any) -> None:
    _, fused = pair(make_model, "W4A16-INT", "Llama")
    shapes = [(g.before, g.op, g.shapes) for g in pw.explain(fused).groups]
    assert shapes == [(None, "linear_w4a16", [(192, 64), (256, 64), (64, 64), (64, 128)])]


def test_fused_blocks_keep_their_modules(make_model: Any) -> None:
    model, fused = pair(make_model, "W8A8-INT", "Qwen3")
    names = [name for name, _ in fused.named_modules() if "joint" not in name]
    assert names == [name for name, _ in model.named_modules()]
    kept = (nn.Linear, nn.Embedding)
    assert sum(isinstance(m, kept) for m in fused.modules()) == sum(
        isinstance(m, kept) for m in model.modules()
    )
