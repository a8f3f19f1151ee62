# SPDX-License-Identifier: Apache-2.0
"""The command ``pennyweight``: what becomes of errors and signals. The commands themselves are in `app`.

Exit codes: 0 done, 1 a check found fault, 2 bad input or a full disk (one line on stderr), 130 Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (the process's own by default) and return its exit code."""
    previous = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        from pennyweight.cli.app import run

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except _Stopped as stopped:
        print(f"pennyweight: interrupted, {stopped.kept}", file=sys.stderr)
        return 128 + stopped.number
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Stopped(BaseException):
    """A signal that asks us to stop. Not a KeyboardInterrupt: typer would answer that itself."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.kept = "nothing was kept"  # a command that keeps something says what


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)
