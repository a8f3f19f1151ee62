# SPDX-License-Identifier: Apache-2.0
"""transformers loads what we write and reads the same numbers; `accelerate` takes its models over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from folders import FIXTURES, SCHEMES, edit_json, same_bits
from tiny import tiny_ids, tiny_model

import pennyweight as pw
from pennyweight.errors import CheckpointError, UnsupportedError
from pennyweight.quantize import quantize
from pennyweight.recipes import Recipe

OURS = {
    "ours-fp8": ("qwen2", True, Recipe("W8A8-FP")),
    "ours-int8": ("qwen3", False, Recipe("W8A8-INT", algorithm="rtn")),
    "ours-int4": ("mistral", True, Recipe("W4A16-INT", algorithm="rtn", observer="minmax")),
    "ours-int4-channel": ("llama", False, Recipe("W4A16-INT", algorithm="rtn", group_size=-1)),
}


@pytest.fixture(params=[*OURS, *SCHEMES])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint by us, or by llm-compressor."""
    if request.param not in OURS:
        return FIXTURES / request.param
    family, tied, recipe = OURS[request.param]
    model = tiny_model(family, tied=tied)
    quantize(model, recipe, progress=False)
    return pw.save(model, tmp_path / "ours")


def transformers_load(folder: Path, **options: object) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options)


def quantized_layers(model: torch.nn.Module) -> dict[str, pw.QuantizedLinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, pw.QuantizedLinear)}


@torch.no_grad()
def test_weights_and_log_probabilities_are_transformers_s(folder: Path, tmp_path: Path) -> None:
    weights_only = Path(shutil.copytree(folder, tmp_path / "weights-only"))
    edit_json(
        weights_only / "config.json",
        lambda c: c["quantization_config"]["config_groups"]["group_0"].update(input_activations=None),
    )
    theirs = transformers_load(weights_only, dtype=torch.float32)
    their_log_p = theirs(tiny_ids(4, 16)).logits.log_softmax(-1)
    ours = pw.load(folder, dtype=torch.float32)
    layers = quantized_layers(ours)
    assert len(layers) == 14
    for name, layer in layers.items():
        dense = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        dense.weight.copy_(layer.dequantize())
        if layer.bias is not None:
            dense.bias.copy_(layer.bias)
        assert same_bits(theirs.get_submodule(name).weight.data, dense.weight.data), name
        ours.set_submodule(name, dense)
    difference = (ours(tiny_ids(4, 16)).logits.log_softmax(-1) - their_log_p).abs().max()
    assert difference <= 1e-3


def test_zero_points_are_compressed_tensors_s() -> None:
    loaded = pw.load(FIXTURES / "W4A16_ASYM")
    weights = QuantizationArgs(num_bits=4, strategy="group", group_size=128, symmetric=False)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    for layer in quantized_layers(loaded).values():
        theirs = PackedQuantizationCompressor.decompress(dict(layer.state_dict()), scheme)["weight"]
        assert same_bits(layer.dequantize().to(torch.bfloat16), theirs)


@torch.no_grad()
def test_accelerate_gives_what_load_gives(folder: Path) -> None:
    theirs = transformers_load(folder)
    assert pw.accelerate(theirs) is theirs
    loaded = pw.load(folder)
    assert len(quantized_layers(theirs)) == 14
    assert same_bits(theirs(tiny_ids(2, 9)).logits, loaded(tiny_ids(2, 9)).logits)
    ours, other = theirs.state_dict(), loaded.state_dict()
    assert ours.keys() == other.keys()
    assert all(same_bits(ours[name], other[name]) for name in ours)


def test_accelerated_model_is_saved_as_it_was(tmp_path: Path) -> None:
    out = pw.save(pw.accelerate(transformers_load(FIXTURES / "W8A8")), tmp_path / "out")
    assert (out / "model.safetensors").read_bytes() == (FIXTURES / "W8A8" / "model.safetensors").read_bytes()


def test_accelerate_refuses_decompressed_model() -> None:
    model = transformers_load(FIXTURES / "W8A8")
    with torch.no_grad():
        model(tiny_ids(1, 4))
    with pytest.raises(CheckpointError, match="has decompressed this model, at its first forward pass"):
        pw.accelerate(model)


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
def test_accelerate_refuses_model_decompressed_at_load() -> None:
    config = transformers.CompressedTensorsConfig(dequantize=True)
    model = transformers_load(FIXTURES / "W8A8", quantization_config=config)
    with pytest.raises(CheckpointError, match="or was loaded with dequantize=True"):
        pw.accelerate(model)


def test_accelerate_refuses_dense_and_accelerated_models() -> None:
    with pytest.raises(CheckpointError, match="not quantized"):
        pw.accelerate(tiny_model("llama"))
    with pytest.raises(CheckpointError, match="are pennyweight's already"):
        pw.accelerate(pw.load(FIXTURES / "W8A8"))


def test_accelerate_refuses_other_formats_by_name() -> None:
    model = tiny_model("llama")
    raw = json.loads((FIXTURES / "W8A8" / "config.json").read_text())["quantization_config"]
    model.config.quantization_config = {**raw, "kv_cache_scheme": {"num_bits": 8}}
    with pytest.raises(UnsupportedError, match="kv_cache_scheme"):
        pw.accelerate(model)
