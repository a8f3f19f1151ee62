# SPDX-License-Identifier: Apache-2.0
"""Quantize Llama-family models, run them on own kernels, hand them to vLLM."""

import torch  # noqa: F401  (first: its libraries must be loaded before ours, which find them by name)

from pennyweight.errors import (
    CalibrationError,
    CheckpointError,
    PennyweightError,
    ShapeError,
    UnsupportedError,
)

__all__ = [
    "CalibrationError",
    "CheckpointError",
    "PennyweightError",
    "ShapeError",
    "UnsupportedError",
]
