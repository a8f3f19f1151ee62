# SPDX-License-Identifier: Apache-2.0
"""Derived error bounds, and the comparison against them."""

import numpy as np
from rows import Array

UNIT_ROUNDOFF = {"f32": 2.0**-24, "bf16": 2.0**-8, "f16": 2.0**-11}


def rounded_once(want: Array, sum_error: Array, dtype: str) -> Array:
    """The bound of a float32 sum that is off by ``sum_error``, after one rounding to ``dtype``.

    2^-25 is half of float16's smallest subnormal.
    """
    return sum_error + UNIT_ROUNDOFF[dtype] * (np.abs(want) + sum_error) + 2.0**-25


def assert_within(got: Array, want: Array, bound: Array) -> None:
    """Every |got - want| <= bound, or the first coordinate that is not; NaN fails."""
    bad = ~(np.abs(got.astype(np.float64) - want) <= bound)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(
            f"{bad.sum()} of {bad.size} wrong; at {at}: {got[at]}, not {want[at]} +- {bound[at]}"
        )
