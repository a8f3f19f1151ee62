# SPDX-License-Identifier: Apache-2.0
"""Finding things by the names that people write."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pennyweight.errors import MeasurementError

T = TypeVar("T")


def plain(name: str) -> str:
    """Return a name without its owner, case, and all but letters, digits and points."""
    return re.sub(r"[^a-z0-9.]+", "", name.rsplit("/", 1)[-1].lower())


def find(name: str, things: Mapping[str, T], what: str, names: Sequence[str]) -> T:
    """Return the thing of this name.

    Args:
        name: As the user writes it.
        things: By plain name.
        what: For the error, "GPU".
        names: For the error: all of them as they are shown.
    Raises:
        MeasurementError: There is none; the text has the nearest names.
    """
    found = things.get(plain(name))
    if found is not None:
        return found
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    raise MeasurementError(f"{what} '{name}' is not known; {hint}All: {', '.join(names)}")
