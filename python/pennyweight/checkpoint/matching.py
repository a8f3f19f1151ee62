# SPDX-License-Identifier: Apache-2.0
"""Which modules a compressed-tensors ``targets`` or ``ignore`` list means.

An entry is a module's exact name, ``re:`` and a regular expression (matched from the start of the name, its
end is free), or the name of the module's class or of one that it derives from. ``ignore`` wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn


def is_match(name: str, module: nn.Module, entries: Iterable[str]) -> bool:
    """Whether any entry means the module called ``name``."""
    return any(_matches(name, module, entry) for entry in entries)


def _matches(name: str, module: nn.Module, entry: str) -> bool:
    if entry.startswith("re:"):
        return re.match(entry[3:], name) is not None
    return entry == name or any(cls.__name__ == entry for cls in type(module).__mro__)
