# SPDX-License-Identifier: Apache-2.0
"""The command in this process: running it, what it gave, and what a refusal must look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pennyweight.cli import main


@dataclass(frozen=True)
class Done:
    """What a run of the command gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def pennyweight(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command with these arguments."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(done: Done, text: str) -> None:
    """One line on stderr that says `text`, exit code 2, nothing else."""
    assert done.code == 2
    assert done.err.count("\n") == 1 and done.err.startswith("pennyweight: "), done.err
    assert text in done.err
    assert done.out == ""
