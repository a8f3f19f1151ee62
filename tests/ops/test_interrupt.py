# SPDX-License-Identifier: Apache-2.0
"""A signal's handler runs while a long operator does, and what it raises ends the operator."""

from __future__ import annotations

import signal
from types import FrameType

import pytest
import torch

from pennyweight import _C, ops

SIZE = 2048  # some tenths of a second


class Stop(BaseException):
    pass


def raise_stop(number: int, frame: FrameType | None) -> None:
    raise Stop


def test_a_signal_ends_a_long_solve() -> None:
    weight, hessian, scale = torch.randn(SIZE, SIZE), torch.eye(SIZE), torch.ones(SIZE, SIZE // 128)
    before = sum(_C.run_counts("gptq_quantize").values())
    handler = signal.signal(signal.SIGALRM, raise_stop)
    try:
        with pytest.raises(Stop):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            ops.gptq_quantize(weight, hessian, scale, 4, 128, 0.01, True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert sum(_C.run_counts("gptq_quantize").values()) == before  # given up, not finished


def test_nothing_to_raise_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was interrupted"):
        _C.raise_interrupt()
