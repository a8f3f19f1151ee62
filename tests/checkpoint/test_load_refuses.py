# SPDX-License-Identifier: Apache-2.0
"""A damaged or foreign checkpoint is one clear error, never a wrong model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from folders import edit_json, edit_tensors

import pennyweight as pw
from pennyweight.errors import CheckpointError, PennyweightError, UnsupportedError

UP = "model.layers.1.mlp.up_proj"
NORM = "model.norm.weight"


def put(name: str, tensor: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.__setitem__(name, tensor)


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors.pop(name)


def poke(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(-1)[3] = value

    return change


def fp8_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{UP}.weight"].view(torch.uint8)[2, 5] = 0x7F


TENSORS: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], object], str]] = {
    "no-scale": ("W8A8", drop(f"{UP}.weight_scale"), f"lacks '{UP}.weight_scale'"),
    "no-weight": ("FP8_DYNAMIC", drop(f"{UP}.weight"), f"lacks '{UP}.weight'"),
    "no-shape": ("W4A16", drop(f"{UP}.weight_shape"), f"lacks '{UP}.weight_shape'"),
    "no-zero-points": ("W4A16_ASYM", drop(f"{UP}.weight_zero_point"), f"lacks '{UP}.weight_zero_point'"),
    "no-norm": ("W4A16", drop(NORM), f"lacks '{NORM}'"),
    "no-head": ("W8A8", drop("lm_head.weight"), "lacks 'lm_head.weight'"),
    "zero-points": ("W4A16", put(f"{UP}.weight_zero_point", torch.zeros(32, 1, dtype=torch.int32)), "no place"),
    "g-idx": ("W4A16", put(f"{UP}.weight_g_idx", torch.zeros(128, dtype=torch.int32)), "actorder 'group'"),
    "input-scale": ("W8A8", put(f"{UP}.input_scale", torch.ones(1)), "static scales"),
    "stray": ("W8A8", put("model.layers.9.x", torch.ones(1)), "'model.layers.9.x', for which the model has no"),
    "scale-flat": ("W8A8", put(f"{UP}.weight_scale", torch.ones(256)), r"shape \[256\].* \[256, 1\]"),
    "scale-turned": ("W8A8", put(f"{UP}.weight_scale", torch.ones(1, 256)), r"shape \[1, 256\].* \[256, 1\]"),
    "scale-int": ("W8A8", put(f"{UP}.weight_scale", torch.ones(256, 1, dtype=torch.int32)), "has dtype I32"),
    "scale-nan": ("W8A8", poke(f"{UP}.weight_scale", float("nan")), r"1 NaN or Inf, the first at \[3, 0\]"),
    "scale-inf": ("W4A16", poke(f"{UP}.weight_scale", float("inf")), f"'{UP}.weight_scale' holds 1 NaN or Inf"),
    "code-nan": ("FP8_DYNAMIC", fp8_nan, r"up_proj.weight' holds 1 NaN or Inf, the first at \[2, 5\]"),
    "norm-nan": ("W8A8", poke(NORM, float("nan")), f"'{NORM}' holds 1 NaN or Inf"),
    "weight-turned": ("W8A8", put(f"{UP}.weight", torch.ones(128, 256, dtype=torch.int8)), r"shape \[128, 256\]"),
    "weight-dtype": ("W8A8", put(f"{UP}.weight", torch.ones(256, 128)), "has dtype F32, must be I8"),
    "shape-lies": ("W4A16", put(f"{UP}.weight_shape", torch.tensor([128, 256])), r"weight_shape says \[128, 256\]"),
    "packed-short": ("W4A16", put(f"{UP}.weight_packed", torch.ones(256, 15, dtype=torch.int32)), r"\[256, 15\]"),
}  # fmt: skip


@pytest.mark.parametrize(("scheme", "change", "text"), TENSORS.values(), ids=TENSORS)
def test_load_refuses_tensors(
    fixture_copy: Callable[[str], Path],
    scheme: str,
    change: Callable[[dict[str, torch.Tensor]], object],
    text: str,
) -> None:
    folder = fixture_copy(scheme)
    edit_tensors(folder, change)
    with pytest.raises(CheckpointError, match=text) as caught:
        pw.load(folder)
    assert str(folder) in str(caught.value)


def first_group(config: dict) -> dict:
    return config["quantization_config"]["config_groups"]["group_0"]


CONFIGS: dict[str, tuple[Callable[[dict], object], str]] = {
    "unknown-model": (lambda c: c.update(model_type="nonsense"), "transformers cannot build this model"),
    "custom-code": (lambda c: c.update(model_type="x", auto_map={"AutoConfig": "x.C"}), "cannot build"),
    "other-size": (lambda c: c.update(intermediate_size=512), r"config.json makes it \[512"),
    "more-layers": (lambda c: c.update(num_hidden_layers=3), "lacks 'model.layers.2"),
    "less-layers": (lambda c: c.update(num_hidden_layers=1), "'model.layers.1.*no place"),
    "head-count": (lambda c: c.update(num_attention_heads="four"), "num_attention_heads must be"),
    "ignored-layer": (
        lambda c: c["quantization_config"]["ignore"].append(UP),
        f"holds '{UP}.weight_packed'|lacks '{UP}.weight'",
    ),
    "no-target": (lambda c: first_group(c).update(targets=["Conv2d"]), "match no linear layer"),
    "head-targeted": (lambda c: c["quantization_config"].update(ignore=[]), "lacks 'lm_head.weight_packed'"),
}


@pytest.mark.parametrize(("change", "text"), CONFIGS.values(), ids=CONFIGS)
def test_load_refuses_config(
    fixture_copy: Callable[[str], Path], change: Callable[[dict], object], text: str
) -> None:
    folder = fixture_copy("W4A16")
    edit_json(folder / "config.json", change)
    with pytest.raises(CheckpointError, match=text):
        pw.load(folder)


def test_load_refuses_ragged_groups(fixture_copy: Callable[[str], Path]) -> None:
    folder = fixture_copy("W4A16")
    edit_json(folder / "config.json", lambda c: c.update(intermediate_size=200))
    with pytest.raises(
        CheckpointError, match=r"group_size 128 does not divide K of .*0.mlp.down_proj \(K=200\)"
    ):
        pw.load(folder)


def test_load_refuses_tied_tensors_that_differ(fixture_copy: Callable[[str], Path]) -> None:
    folder = fixture_copy("W8A8")
    edit_json(folder / "config.json", lambda c: c.update(tie_word_embeddings=True))
    with pytest.raises(CheckpointError, match=r"ties .* two different tensors"):
        pw.load(folder)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    loaded = pw.load(folder)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_load_refuses_dense_model_and_says_what_to_do(dense_folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"not quantized; load it with transformers .* pennyweight.quantize"
    ):
        pw.load(dense_folder)


def test_load_refuses_integer_dtype(fixture_copy: Callable[[str], Path]) -> None:
    with pytest.raises(UnsupportedError, match="dtype must be bfloat16, float16 or float32"):
        pw.load(fixture_copy("W8A8"), dtype=torch.int8)


def test_load_refuses_bad_generation_config(fixture_copy: Callable[[str], Path]) -> None:
    folder = fixture_copy("W8A8")
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(PennyweightError, match=r"generation_config.json: is no valid JSON"):
        pw.load(folder)


def test_load_passes_over_what_old_versions_wrote(fixture_copy: Callable[[str], Path]) -> None:
    folder = fixture_copy("W8A8")
    edit_tensors(folder, put("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(16)))
    pw.load(folder)
