# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of good folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import FIXTURES
from tiny import tiny_model


@pytest.fixture
def fixture_copy(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a checkpoint by llm-compressor that a test may damage."""

    def copy(scheme: str) -> Path:
        return Path(shutil.copytree(FIXTURES / scheme, tmp_path / scheme))

    return copy


@pytest.fixture(scope="session")
def dense_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as transformers saves it, in one file."""
    folder = tmp_path_factory.mktemp("dense") / "model"
    tiny_model("llama").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sharded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in several files with an index."""
    folder = tmp_path_factory.mktemp("sharded") / "model"
    tiny_model("llama").save_pretrained(folder, max_shard_size="300KB")
    return folder
