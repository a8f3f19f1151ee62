# SPDX-License-Identifier: Apache-2.0
"""The command in this process, and the tiny models of tests/checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))

from command import Done
from tiny import tiny_model

from pennyweight.cli import main


@pytest.fixture
def pennyweight(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command with these arguments."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as transformers saves it, without a tokenizer."""
    folder = tmp_path_factory.mktemp("source") / "model"
    tiny_model("llama").save_pretrained(folder)
    return folder
