# SPDX-License-Identifier: Apache-2.0
"""The command in this process, and the tiny models of tests/checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))

from command import pennyweight  # noqa: F401  (a fixture)
from tiny import tiny_model


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as transformers saves it, without a tokenizer."""
    folder = tmp_path_factory.mktemp("source") / "model"
    tiny_model("llama").save_pretrained(folder)
    return folder
