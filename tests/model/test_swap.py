# SPDX-License-Identifier: Apache-2.0
"""Blocks and layers found by structure."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES
from torch import nn

from pennyweight.errors import UnsupportedError
from pennyweight.swap import decoder_blocks, replace_module, target_linears

LAYERS = [f"self_attn.{p}_proj" for p in "qkvo"] + [f"mlp.{p}_proj" for p in ("gate", "up", "down")]


@pytest.mark.parametrize("family", FAMILIES)
def test_target_linears_finds_every_layer_of_the_blocks(family: str, make_model: Any) -> None:
    model = make_model(family)
    name, blocks = decoder_blocks(model)
    assert name == "model.layers" and blocks is model.model.layers
    targets = target_linears(model)
    assert set(targets) == {f"model.layers.{i}.{layer}" for i in range(2) for layer in LAYERS}
    assert all(model.get_submodule(n) is linear for n, linear in targets.items())


def test_target_linears_leaves_out_names_and_patterns(make_model: Any) -> None:
    targets = target_linears(
        make_model(), ["lm_head", "model.layers.0.mlp.up_proj", r"re:.*\.1\..*(q|k)_proj"]
    )
    assert len(targets) == 11
    assert "model.layers.0.mlp.up_proj" not in targets
    assert "model.layers.1.self_attn.q_proj" not in targets and "model.layers.0.self_attn.q_proj" in targets


def test_target_linears_refuses_an_entry_that_matches_nothing(make_model: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"'model.layers.0.mlp.upproj' .*near: .*up_proj"):
        target_linears(make_model(), ["model.layers.0.mlp.upproj"])
    with pytest.raises(UnsupportedError, match="matches no module"):
        target_linears(make_model(), ["re:decoder"])


def test_target_linears_takes_lm_head_where_there_is_none(make_model: Any) -> None:
    assert len(target_linears(make_model().model, ["lm_head"])) == 14


def test_decoder_blocks_are_the_outer_list() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(9))
            self.stack = nn.ModuleList(Block() for _ in range(2))

    assert decoder_blocks(Model())[0] == "stack"
    assert len(target_linears(Model())) == 6


def test_decoder_blocks_refuses_a_model_without() -> None:
    with pytest.raises(UnsupportedError, match="ModuleList of like blocks"):
        decoder_blocks(nn.Sequential(nn.Linear(2, 2)))


def test_replace_module_keeps_the_mode(make_model: Any) -> None:
    model = make_model().eval()
    replace_module(model, "model.layers.1.mlp.up_proj", new := nn.Linear(2, 2))
    assert model.model.layers[1].mlp.up_proj is new and not new.training
    assert torch.is_tensor(new.weight)
