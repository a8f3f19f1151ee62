# SPDX-License-Identifier: Apache-2.0
"""Results read back from JSON, and believed only when they are whole: each key there, of its type, numbers finite."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pennyweight.errors import PennyweightError


def read_json(path: Path, error: type[PennyweightError]) -> Any:
    """Return what a file holds.

    Raises:
        PennyweightError: Of the given class, where it cannot be read, is truncated, or holds NaN or Inf.
    """
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror or failure}") from failure
    return parse_json(path, data, error)


def parse_json(path: str | Path, data: bytes, error: type[PennyweightError]) -> Any:
    """Return what a file's bytes hold; errors as `read_json`."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as failure:
        raise error(f"{path}: is truncated or no JSON ({failure}); make it again") from None


def checksum(value: Any) -> str:
    """Return the SHA-256 of a value as canonical JSON, hexadecimal; ValueError where it holds NaN or Inf."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_keys(
    path: str | Path, where: str, content: Any, keys: Mapping[str, Any], error: type[PennyweightError]
) -> None:
    """Check that an object has these keys with values of these types, numbers finite.

    Args:
        path: What an error names.
        where: The object's place in the file ("rows[3]"); "": the whole.
        content: The object.
        keys: Type, or tuple of types, by key; True and False are no numbers.
        error: Class of the error.
    """
    if not isinstance(content, dict):
        raise error(
            f"{path}: {where or 'it'} must be an object, it is {type(content).__name__}; make it again"
        )
    for key, types in keys.items():
        value = content.get(key)
        wrong = not isinstance(value, types) or (isinstance(value, bool) and types is not bool)
        if key not in content or wrong or (isinstance(value, float) and not math.isfinite(value)):
            got = "missing" if key not in content else repr(value)[:40]
            place = f"{where}.{key}" if where else key
            raise error(f"{path}: {place} is {got}: truncated or changed by hand; make it again")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no measurement")
