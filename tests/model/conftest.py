# SPDX-License-Identifier: Apache-2.0
"""Fixtures: tiny random models, and token ids for them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "checkpoint"))

from families import VOCABULARY, build
from threads import one_thread  # noqa: F401  (a fixture)

_cache: dict[Any, torch.nn.Module] = {}


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """Return a function (family, dtype, **config) -> a model of one's own."""

    def make(family: str = "Llama", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
        key = (family, dtype, *sorted(changes.items()))
        if key not in _cache:
            _cache[key] = build(family, dtype, **changes)
        return copy.deepcopy(_cache[key])

    return make


@pytest.fixture
def ids() -> torch.Tensor:
    """Token ids (8, 40): fewer than a batch, more than a sliding window."""
    return torch.randint(VOCABULARY, (8, 40), generator=torch.Generator().manual_seed(1))
