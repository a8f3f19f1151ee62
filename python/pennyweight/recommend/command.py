# SPDX-License-Identifier: Apache-2.0
"""From a recommendation, the `pennyweight quantize` command that makes it."""

from __future__ import annotations

import shlex
from pathlib import Path

from pennyweight.recommend.shapes import Shape

#: The study smoothed activations at 70B alone, where W8A8-INT without it lost visibly: parameters from, to.
SMOOTHED = (50e9, 150e9)


def quantize_command(format_: str, model: str | Path, shape: Shape | None) -> str | None:
    """Return the command; None for BF16, which needs none.

    Args:
        format_: "BF16" or a scheme; another label of a benchmark has no command either.
        model: Name or folder, as the user gave it.
        shape: Its sizes; None: not known.
    """
    out = f"{Path(str(model)).name}-{format_.lower()}"
    start = f"pennyweight quantize {shlex.quote(str(model))} {shlex.quote(out)} --scheme {format_}"
    if format_ == "W8A8-FP":
        return start
    if format_ == "W4A16-INT":
        return f"{start} --calibration texts.jsonl"
    if format_ == "W8A8-INT":
        smooth = shape is not None and SMOOTHED[0] <= shape.parameters <= SMOOTHED[1]
        return f"{start} --calibration texts.jsonl" + (" --smoothquant" if smooth else "")
    return None
