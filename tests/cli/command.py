# SPDX-License-Identifier: Apache-2.0
"""What a run of the command gave, and what a refusal must look like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """What a run of the command gave."""

    code: int
    out: str
    err: str


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(done: Done, text: str) -> None:
    """One line on stderr that says `text`, exit code 2, nothing else."""
    assert done.code == 2
    assert done.err.count("\n") == 1 and done.err.startswith("pennyweight: "), done.err
    assert text in done.err
    assert done.out == ""
