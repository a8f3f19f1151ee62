# SPDX-License-Identifier: Apache-2.0
"""Recipes: a scheme plus how its weights are found.

What is not given is what the study used (arXiv 2411.02355):

    scheme       algorithm   observer   group   damping   act-order   SmoothQuant
    W8A8-FP      rtn         minmax     row     -         -           off
    W8A8-INT     gptq        minmax     row     0.01      static      off (True: 0.8)
    W4A16-INT    gptq        mse        128     0.01      static      -
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pennyweight.errors import UnsupportedError
from pennyweight.schemes import Scheme
from pennyweight.schemes import scheme as find_scheme

#: SmoothQuant strength where it is asked for without a value.
SMOOTHQUANT_STRENGTH = 0.8
GROUP_SIZES = (32, 64, 128, -1)


@dataclass(frozen=True)
class Recipe:
    """How a model is quantized. Fields left at None take the study's value for the scheme.

    Attributes:
        scheme: "W8A8-FP", "W8A8-INT" or "W4A16-INT" (or an alias: FP8_DYNAMIC, W8A8, W4A16).
        algorithm: "gptq" or "rtn" (round to nearest).
        observer: "minmax" or "mse" (optimal clipping): how scales are found.
        smoothquant: Strength in [0, 1]; True: 0.8; False or None: off.
        damping: Share of the Hessian's mean diagonal that GPTQ adds to the diagonal.
        act_order: "static" (columns of large activations first) or "none"; GPTQ only.
        group_size: Weights along K that share a scale (W4A16-INT): 32, 64, 128, or -1, the whole row.
        ignore: Modules left as they are: exact names, or "re:" and a regular expression.
    Raises:
        UnsupportedError: A value that is none of these, or options that make no sense together.
    """

    scheme: str
    algorithm: str | None = None
    observer: str | None = None
    smoothquant: float | bool | None = None
    damping: float | None = None
    act_order: str | None = None
    group_size: int | None = None
    ignore: Iterable[str] = ("lm_head",)

    def __post_init__(self) -> None:
        scheme = find_scheme(self.scheme)
        self._set("scheme", scheme.name)
        self._set("algorithm", _choice("algorithm", self.algorithm, ("gptq", "rtn"), _algorithm(scheme)))
        default = "mse" if scheme.weight == "int4" else "minmax"
        self._set("observer", _choice("observer", self.observer, ("minmax", "mse"), default))
        self._set("smoothquant", _strength(self.smoothquant))
        self._set("group_size", _group_size(scheme, self.group_size))
        self._check_gptq(scheme)
        if self.smoothquant is not None and scheme.activation is None:
            raise UnsupportedError(
                f"recipe: SmoothQuant eases the quantization of activations, and {scheme.name} has none; "
                f"leave smoothquant out"
            )
        self._set("ignore", _patterns(self.ignore))

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _check_gptq(self, scheme: Scheme) -> None:
        if self.algorithm == "rtn":
            for field in ("damping", "act_order"):
                if getattr(self, field) is not None:
                    raise UnsupportedError(
                        f"recipe: {field} belongs to gptq, and the algorithm is rtn; leave it out"
                    )
            return
        if scheme.weight == "fp8":
            raise UnsupportedError(
                f"recipe: gptq finds integer codes, and {scheme.name} has none; use algorithm='rtn'"
            )
        damping = 0.01 if self.damping is None else float(self.damping)
        if not (0.0 < damping <= 1.0):
            raise UnsupportedError(f"recipe: damping must be above 0 and at most 1; got {self.damping}")
        self._set("damping", damping)
        self._set("act_order", _choice("act_order", self.act_order, ("static", "none"), "static"))

    @property
    def layer_scheme(self) -> Scheme:
        """The scheme with this recipe's group size."""
        return dataclasses.replace(
            find_scheme(self.scheme), group_size=_group_size(find_scheme(self.scheme), self.group_size)
        )

    @property
    def needs_calibration(self) -> bool:
        """Whether weights cannot be found without data."""
        return self.algorithm == "gptq" or self.smoothquant is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, those of the study filled in."""
        return {**dataclasses.asdict(self), "ignore": list(self.ignore)}


def as_recipe(recipe: Recipe | str) -> Recipe:
    """Return a recipe as it is, or a scheme's preset by the scheme's name."""
    return recipe if isinstance(recipe, Recipe) else Recipe(recipe)


def _algorithm(scheme: Scheme) -> str:
    return "rtn" if scheme.weight == "fp8" else "gptq"


def _choice(field: str, value: str | None, choices: tuple[str, ...], default: str) -> str:
    if value is None:
        return default
    if value not in choices:
        raise UnsupportedError(f"recipe: {field} must be one of {', '.join(choices)}; got {value!r}")
    return value


def _strength(value: float | bool | None) -> float | None:
    if value is None or value is False:
        return None
    strength = SMOOTHQUANT_STRENGTH if value is True else float(value)
    if not (0.0 <= strength <= 1.0) or math.isnan(strength):
        raise UnsupportedError(
            f"recipe: smoothquant is a strength between 0 and 1, or True for 0.8; got {value}"
        )
    return strength


def _group_size(scheme: Scheme, value: int | None) -> int:
    if scheme.weight != "int4":
        if value not in (None, -1):
            raise UnsupportedError(
                f"recipe: {scheme.name} has one scale per row; got group_size={value}; leave it out"
            )
        return -1
    if value is None:
        return 128
    if value not in GROUP_SIZES:
        raise UnsupportedError(f"recipe: group_size must be 32, 64, 128 or -1 (the whole row); got {value}")
    return int(value)


def _patterns(ignore: Iterable[str]) -> tuple[str, ...]:
    patterns = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    for pattern in patterns:
        if pattern.startswith("re:"):
            try:
                re.compile(pattern[3:])
            except re.error as error:
                raise UnsupportedError(
                    f"recipe: ignore entry {pattern!r} is no regular expression: {error}"
                ) from None
    return patterns
