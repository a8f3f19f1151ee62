# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in the compressed-tensors format: read strictly, written whole."""

from pennyweight.checkpoint.accelerator import accelerate
from pennyweight.checkpoint.loader import load
from pennyweight.checkpoint.writer import save

__all__ = ["accelerate", "load", "save"]
