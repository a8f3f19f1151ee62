# SPDX-License-Identifier: Apache-2.0
"""Quantized models, fused copies of them, and how codes are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pennyweight as pw
from pennyweight.fuse import fuse_model

#: One recipe a scheme; intermediate sizes of 96 leave half a panel, and groups of 32 divide them.
RECIPES = {
    "W8A8-FP": pw.Recipe("W8A8-FP"),
    "W8A8-INT": pw.Recipe("W8A8-INT", algorithm="rtn"),
    "W4A16-INT": pw.Recipe("W4A16-INT", algorithm="rtn", observer="minmax", group_size=32),
}
EIGHT_BITS = {"W8A8-FP": "fp8", "W8A8-INT": "int8"}
QUANTIZE: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "fp8": pw.ops.quantize_per_token_fp8,
    "int8": pw.ops.quantize_per_token_int8,
}


def pair(make_model: Any, scheme: str, *args: Any, **changes: Any) -> tuple[Any, Any]:
    """A quantized model and a fused copy of it, of which everything is fused."""
    model = make_model(*args, **changes)
    pw.quantize(model, RECIPES[scheme], progress=False)
    fused = copy.deepcopy(model)
    assert fuse_model(fused) == {}
    return model, fused


def order(codes: Tensor) -> Tensor:
    """Codes as integers of which neighbours differ by one; both zeros of FP8 are 0."""
    wide = codes.int()
    return wide if codes.dtype == torch.int8 else torch.where(wide < 128, wide, 128 - wide)


class Count:
    """Codes seen, and how many of them differ by one step; more than one step is an error at once."""

    def __init__(self) -> None:
        self.codes = self.differ = 0

    def add(self, one: Tensor, other: Tensor) -> None:
        steps = (order(one) - order(other)).abs()
        assert one.shape == other.shape and int(steps.max()) <= 1
        self.codes += steps.numel()
        self.differ += int(steps.sum())

    def check(self, least: int) -> None:
        """At most one code in 10,000, of at least so many."""
        assert self.codes >= least
        assert self.differ * 10_000 <= self.codes, f"{self.differ} of {self.codes} codes differ"


def greedy(model: Any, ids: Tensor, **kwargs: Any) -> Tensor:
    """Token ids that a model continues with, the most likely one each time."""
    tokens: Tensor = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, **kwargs
    )
    return tokens


def assert_alike(got: Tensor, want: Tensor) -> None:
    """Logits of one structure: a code that is off by one step moves some rows a little, another structure all."""
    apart = (got - want).abs()
    assert float(apart.quantile(0.75)) < 1e-4, f"a quarter of the logits differ by {apart.quantile(0.75):g}"
    assert float(apart.max()) < 0.2 * float(want.abs().max())
