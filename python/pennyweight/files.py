# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from pennyweight.errors import PennyweightError


def write_text(path: Path, text: str, error: type[PennyweightError]) -> None:
    """Write a text beside its place and move it in; its folder is made if it is not there.

    Raises:
        PennyweightError: Of the given class, where it cannot be written; what was there before still is.
    """
    beside = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except BaseException as failure:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(failure, OSError):
            why = failure.strerror or failure
            raise error(f"{path}: cannot be written: {why}; nothing was changed") from failure
        raise
