# SPDX-License-Identifier: Apache-2.0
"""A damaged source is one line on stderr and exit code 2; nothing is written, the source is untouched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import files, refused
from safetensors.torch import load_file, save_file
from tiny import SIZES, fill
from transformers import LlamaConfig, LlamaForCausalLM


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def absurd(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)


def index_to(shard: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = {"weight_map": {"model.norm.weight": shard}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def edit_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def edit_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors[name] = change(tensors[name].clone()).contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def poke(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[5] = value
        return tensor

    return change


def to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


UP = "model.layers.0.mlp.up_proj.weight"
SOURCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "model.safetensors: is truncated"),
    "absurd-length": (absurd, "model.safetensors: is no safetensors file"),
    "index-outside": (index_to("../secret.safetensors"), "'../secret.safetensors'; a shard must be"),
    "missing-shard": (index_to("m-1.safetensors"), "m-1.safetensors: shard is missing"),
    "no-config": (lambda f: (f / "config.json").unlink(), "config.json: is missing"),
    "unknown-model": (edit_config(model_type="nonsense"), "transformers cannot build this model"),
    "other-size": (edit_config(intermediate_size=512), "_proj.weight' has shape ["),
    "quantized": (edit_config(quantization_config={"quant_method": "awq"}), "is quantized already (awq)"),
    "nan": (edit_tensor(UP, poke(float("nan"))), f"'{UP}' holds 1 NaN or Inf, the first at [0, 5]"),
    "inf": (edit_tensor("model.norm.weight", poke(float("-inf"))), "'model.norm.weight' holds 1 NaN or Inf"),
    "turned": (edit_tensor(UP, lambda t: t.T), f"'{UP}' has shape [128, 256]"),
    "integers": (edit_tensor(UP, lambda t: t.to(torch.int8)), f"'{UP}' has dtype I8"),
    "pickle": (to_pickle, "has only pickled weights (pytorch_model.bin)"),
}


@pytest.mark.parametrize(("damage", "text"), SOURCES.values(), ids=SOURCES)
def test_quantize_refuses_source(
    pennyweight: Callable, source: Path, tmp_path: Path, damage: Callable[[Path], object], text: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(source, folder)
    damage(folder)
    before = files(tmp_path)
    refused(pennyweight("quantize", folder, tmp_path / "out", "--scheme", "W8A8-FP"), text)
    assert files(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_quantize_names_every_ragged_layer(pennyweight: Callable, tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "intermediate_size": 200})).to(torch.bfloat16)
    fill(model)
    model.save_pretrained(tmp_path / "model")
    options = ("--scheme", "W4A16-INT", "--calibration", "random", "--samples", 4, "--length", 32)
    done = pennyweight("quantize", tmp_path / "model", tmp_path / "out", *options)
    refused(done, "model.layers.0.mlp.down_proj (K=200), model.layers.1.mlp.down_proj (K=200)")
    assert pennyweight("quantize", tmp_path / "model", tmp_path / "out", "--scheme", "W8A8-FP").code == 0
