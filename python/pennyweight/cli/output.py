# SPDX-License-Identifier: Apache-2.0
"""What commands share in what they print and write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pennyweight.errors import CheckpointError
from pennyweight.files import write_text


def quiet() -> None:
    """Keep transformers' own notes off stderr, where one line means one fault."""
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a command's result as JSON."""
    write_text(path, json.dumps(result, indent=2) + "\n", CheckpointError)
