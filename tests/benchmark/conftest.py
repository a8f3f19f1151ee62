# SPDX-License-Identifier: Apache-2.0
"""The tiny models of tests/checkpoint and the fake server of tests/evaluate."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))

from command import pennyweight  # noqa: F401  (a fixture)
from threads import one_thread  # noqa: F401  (a fixture)
from tiny import tiny_model
from tiny_tokens import tiny_tokenizer


@pytest.fixture(scope="session", autouse=True)
def long_lived() -> Iterator[None]:
    """Continuous batching collects garbage twice when it stops: a second each with all that is imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def model() -> Any:
    """A tiny Llama in bfloat16; not to be changed."""
    return tiny_model("llama")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    """It on disk, with a tokenizer."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path
