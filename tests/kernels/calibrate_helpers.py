# SPDX-License-Identifier: Apache-2.0
"""Runs calibration and layout ops on NumPy buffers, without torch operators."""

from typing import Any

import numpy as np
import pytest
import torch

from pennyweight import _C

TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
EPS = 2.0**-24  # unit roundoff of float32


def implementations(op: str) -> list[Any]:
    """The op's implementations as pytest parameters; those the machine lacks are skipped."""
    return [
        pytest.param(name, id=name, marks=pytest.mark.skipif(why is not None, reason=f"{name} {why}"))
        for name, why in _C.why_not(op, {})
    ]


def raw(x: torch.Tensor) -> np.ndarray:
    """The bits of a float tensor as a NumPy array (16-bit types as int16)."""
    x = x.contiguous()
    return x.numpy() if x.dtype == torch.float32 else x.view(torch.int16).numpy()


def run(op: str, implementation: str, **args: Any) -> None:
    """Runs one implementation and proves that it was this one."""
    _C.run(op, args, implementation)
    assert _C.last_run(op) == implementation


def assert_equal(actual: np.ndarray, expected: np.ndarray, what: str = "value") -> None:
    """Bitwise equality, with the first bad coordinate."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    bad = actual.view(f"i{actual.itemsize}") != expected.view(f"i{expected.itemsize}")
    if bad.any():
        where = tuple(int(i[0]) for i in np.nonzero(bad))
        raise AssertionError(f"{what}{where}: {actual[where]} is not {expected[where]} ({bad.sum()} differ)")


def assert_within(actual: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> None:
    """|actual - expected| <= bound, with the first bad coordinate; NaN fails."""
    good = np.abs(actual.astype(np.float64) - expected) <= bound
    if not good.all():
        where = tuple(int(i[0]) for i in np.nonzero(~good))
        raise AssertionError(f"{where}: {actual[where]} is not {expected[where]} +- {bound[where]}")
