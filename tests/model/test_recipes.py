# SPDX-License-Identifier: Apache-2.0
"""Recipes: the study's values, and what makes no sense together."""

from __future__ import annotations

from typing import Any

import pytest

from pennyweight.errors import UnsupportedError
from pennyweight.recipes import Recipe, as_recipe

FIELDS = ("algorithm", "observer", "smoothquant", "damping", "act_order", "group_size")
PRESETS = {
    "W8A8-FP": ("rtn", "minmax", None, None, None, -1),
    "W8A8-INT": ("gptq", "minmax", None, 0.01, "static", -1),
    "W4A16-INT": ("gptq", "mse", None, 0.01, "static", 128),
}


@pytest.mark.parametrize("name", PRESETS)
def test_recipe_defaults_are_the_studys(name: str) -> None:
    recipe = as_recipe(name)
    assert tuple(getattr(recipe, field) for field in FIELDS) == PRESETS[name]
    assert recipe.ignore == ("lm_head",)
    assert recipe.needs_calibration == (recipe.algorithm == "gptq")


@pytest.mark.parametrize(
    ("alias", "name"), [("FP8_DYNAMIC", "W8A8-FP"), ("w8a8", "W8A8-INT"), ("W4A16", "W4A16-INT")]
)
def test_recipe_takes_preset_names_as_aliases(alias: str, name: str) -> None:
    assert Recipe(alias) == Recipe(name)


def test_recipe_smoothquant_true_is_the_groups_strength() -> None:
    assert Recipe("W8A8-INT", smoothquant=True).smoothquant == 0.8
    assert Recipe("W8A8-INT", smoothquant=False).smoothquant is None
    assert Recipe("W8A8-INT", algorithm="rtn", smoothquant=0.5).needs_calibration


def test_recipe_layer_scheme_has_its_group_size() -> None:
    assert Recipe("W4A16-INT", group_size=32).layer_scheme.group_size == 32
    assert Recipe("W4A16-INT", group_size=-1).layer_scheme.group_size == -1


def test_recipe_to_dict_is_plain() -> None:
    values = Recipe("W4A16-INT", ignore="re:.*down_proj").to_dict()
    assert values["ignore"] == ["re:.*down_proj"]
    assert Recipe(**values) == Recipe("W4A16-INT", ignore=["re:.*down_proj"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scheme": "W8A8-FP", "algorithm": "gptq"}, "gptq finds integer codes"),
        ({"scheme": "W4A16-INT", "smoothquant": 0.8}, "leave smoothquant out"),
        ({"scheme": "W8A8-INT", "smoothquant": 1.5}, "between 0 and 1"),
        ({"scheme": "W8A8-INT", "smoothquant": float("nan")}, "between 0 and 1"),
        ({"scheme": "W8A8-INT", "group_size": 128}, "one scale per row"),
        ({"scheme": "W4A16-INT", "group_size": 100}, "32, 64, 128 or -1"),
        ({"scheme": "W4A16-INT", "algorithm": "awq"}, "one of gptq, rtn"),
        ({"scheme": "W4A16-INT", "observer": "percentile"}, "one of minmax, mse"),
        ({"scheme": "W4A16-INT", "act_order": "group"}, "one of static, none"),
        ({"scheme": "W4A16-INT", "algorithm": "rtn", "damping": 0.1}, "damping belongs to gptq"),
        ({"scheme": "W4A16-INT", "algorithm": "rtn", "act_order": "static"}, "act_order belongs to gptq"),
        ({"scheme": "W4A16-INT", "damping": 0.0}, "above 0"),
        ({"scheme": "W4A16-INT", "damping": float("nan")}, "above 0"),
        ({"scheme": "W4A16-INT", "ignore": ["re:("]}, "no regular expression"),
        ({"scheme": "W5A5"}, "W5A5"),
    ],
)
def test_recipe_refuses_what_makes_no_sense(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedError, match=text):
        Recipe(**options)
