# SPDX-License-Identifier: Apache-2.0
"""targets and ignore mean what they mean to compressed-tensors."""

from __future__ import annotations

import pytest
from compressed_tensors.utils.match import is_match as their_match
from tiny import tiny_model

from pennyweight.checkpoint.matching import is_match

ENTRIES = [
    "Linear",
    "Module",
    "LlamaMLP",
    "linear",
    "Line",
    "lm_head",
    "re:.*lm_head$",
    "model.layers.0.mlp.down_proj",
    "down_proj",
    "re:.*down_proj",
    "re:model.layers.1",
    "re:layers",
    "re:.*(q|k)_proj$",
    "",
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_is_match_agrees_with_compressed_tensors(entry: str) -> None:
    model = tiny_model("llama")
    for name, module in model.named_modules():
        assert is_match(name, module, [entry]) == their_match(name, module, entry), name


def test_is_match_takes_any_entry() -> None:
    model = tiny_model("llama")
    assert is_match("lm_head", model.lm_head, ["nothing", "lm_head"])
    assert not is_match("lm_head", model.lm_head, [])
