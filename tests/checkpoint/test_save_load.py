# SPDX-License-Identifier: Apache-2.0
"""What is saved comes back: every scheme, dtype and family, one file or many, ours or llm-compressor's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from folders import FIXTURES, SCHEMES, contents, edit_tensors, same_bits, same_tensors
from safetensors.torch import load_file
from tiny import tiny_ids, tiny_model

import pennyweight as pw
from pennyweight.quantize import quantize
from pennyweight.recipes import Recipe

RECIPES = {
    "fp8": Recipe("W8A8-FP"),
    "int8": Recipe("W8A8-INT", algorithm="rtn"),
    "int4-g32": Recipe("W4A16-INT", algorithm="rtn", observer="minmax", group_size=32),
    "int4-g128": Recipe("W4A16-INT", algorithm="rtn", observer="minmax"),
    "int4-channel": Recipe("W4A16-INT", algorithm="rtn", observer="minmax", group_size=-1),
}
# W8A8 and W4A16 are by GPTQ, W4A16_ASYM by rounding to nearest with zero points, which we read and do not make.
MINMAX = {"FP8_DYNAMIC": RECIPES["fp8"], "W8A8": RECIPES["int8"], "W4A16": RECIPES["int4-g128"]}


def quantized(recipe: Recipe, family: str = "llama", dtype: torch.dtype = torch.bfloat16, tied: bool = False):
    model = tiny_model(family, dtype=dtype, tied=tied)
    quantize(model, recipe, progress=False)
    return model


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(tiny_ids(2, 9)).logits


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("recipe", ["fp8", "int8", "int4-g32"])
def test_save_load_round_trips_every_family(tmp_path: Path, recipe: str, family: str, tied: bool) -> None:
    model = quantized(RECIPES[recipe], family, tied=tied)
    loaded = pw.load(pw.save(model, tmp_path / "out"))
    assert type(loaded) is type(model)
    assert same_tensors(loaded.state_dict(), model.state_dict())
    assert same_bits(logits(loaded), logits(model))
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    assert ("lm_head.weight" in load_file(tmp_path / "out" / "model.safetensors")) != tied


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"]
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_save_load_round_trips_every_dtype(tmp_path: Path, recipe: str, dtype: torch.dtype) -> None:
    model = quantized(RECIPES[recipe], "qwen2", dtype, tied=True)
    loaded = pw.load(pw.save(model, tmp_path / "out"))
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {t.dtype for name, t in stored.items() if name.endswith("weight_scale")} == {dtype}
    assert loaded.dtype == dtype
    assert same_tensors(loaded.state_dict(), model.state_dict())
    assert same_bits(logits(loaded), logits(model))


def test_shards_hold_the_same_tensors(tmp_path: Path) -> None:
    model = quantized(RECIPES["int8"])
    pw.save(model, tmp_path / "one")
    pw.save(model, tmp_path / "many", max_shard_size="100KB")
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    joined = {}
    for shard in shards:
        held = load_file(shard)
        assert sum(t.nbytes for t in held.values()) <= 100_000
        assert {index["weight_map"][name] for name in held} == {shard.name}
        joined.update(held)
    assert index["weight_map"].keys() == joined.keys()
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in joined.values())
    assert same_tensors(joined, load_file(tmp_path / "one" / "model.safetensors"))
    assert same_tensors(pw.load(tmp_path / "many").state_dict(), pw.load(tmp_path / "one").state_dict())


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pw.save(quantized(RECIPES["int4-g128"]), tmp_path / name, max_shard_size="200KB")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_llm_compressor_s_checkpoint_is_saved_again_byte_for_byte(tmp_path: Path, scheme: str) -> None:
    model = pw.load(FIXTURES / scheme)
    out = pw.save(model, tmp_path / "out")
    assert (out / "model.safetensors").read_bytes() == (FIXTURES / scheme / "model.safetensors").read_bytes()
    theirs = json.loads((FIXTURES / scheme / "config.json").read_text())
    ours = json.loads((out / "config.json").read_text())
    theirs["quantization_config"]["config_groups"]["group_0"]["weights"]["actorder"] = (
        None  # not kept by a model
    )
    assert ours.pop("transformers_version") and theirs.pop("transformers_version")
    assert ours == theirs


@pytest.mark.parametrize("scheme", MINMAX)
def test_scales_are_llm_compressor_s(scheme: str) -> None:
    ours = quantized(MINMAX[scheme]).state_dict()
    theirs = load_file(FIXTURES / scheme / "model.safetensors")
    scales = [name for name in theirs if name.endswith("weight_scale")]
    assert len(scales) == 14
    for name in scales:
        assert same_bits(ours[name], theirs[name]), name
    assert same_tensors(
        {n: t for n, t in ours.items() if not n.endswith(("_proj.weight", "_packed"))},
        {n: t for n, t in theirs.items() if not n.endswith(("_proj.weight", "_packed"))},
    )


def test_load_sets_the_model_up(tmp_path: Path) -> None:
    model = quantized(RECIPES["fp8"])
    model.generation_config.max_new_tokens = 7
    model.generation_config.temperature = 0.5  # not valid without do_sample, and none of our business
    pw.save(model, tmp_path / "out")
    loaded = pw.load(tmp_path / "out", device="cpu")
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.generation_config.max_new_tokens == 7
    out = loaded.generate(tiny_ids(1, 5), do_sample=False, temperature=1.0, max_new_tokens=3, pad_token_id=0)
    assert out.shape == (1, 8)


def test_load_in_another_dtype_keeps_codes_and_scales(tmp_path: Path) -> None:
    model = quantized(RECIPES["int8"])
    pw.save(model, tmp_path / "out")
    loaded = pw.load(tmp_path / "out", dtype=torch.float32)
    assert loaded.dtype == torch.float32
    ours, theirs = loaded.model.layers[0].mlp.up_proj, model.model.layers[0].mlp.up_proj
    assert same_tensors(dict(ours.state_dict()), dict(theirs.state_dict()))
    assert logits(loaded).dtype == torch.float32


def test_load_ties_whichever_name_is_stored(tmp_path: Path) -> None:
    model = quantized(RECIPES["int8"], tied=True)
    out = pw.save(model, tmp_path / "out")

    edit_tensors(out, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    loaded = pw.load(out)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert same_bits(loaded.lm_head.weight.data, model.lm_head.weight.data)


def test_recipe_is_recorded(tmp_path: Path) -> None:
    model = quantized(RECIPES["int4-g32"])
    pw.save(model, tmp_path / "out", recipe=Recipe("W4A16-INT", group_size=32))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert (weights["actorder"], weights["observer"], weights["group_size"]) == ("static", "mse", 32)
