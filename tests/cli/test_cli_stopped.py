# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at any moment, and a disk that fills up: nothing half written, no traceback."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STEPS = [
    "pennyweight.checkpoint.folder.read_header",
    "pennyweight.checkpoint.loader.read_tensor",
    "pennyweight.quantize.quantize_layer",
    "pennyweight.checkpoint.writer.copy_companions",
    "pennyweight.checkpoint.writer._write_tensor",
    "pennyweight.checkpoint.writer._compare",
]
INTERRUPTED = "pennyweight: interrupted, nothing was kept\n"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_command_leaves_nothing(
    pennyweight: Callable,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
    code: int,
) -> None:
    def stop(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(1)  # the signal arrives here

    before = signal.getsignal(signal.SIGINT)
    module, _, name = step.rpartition(".")
    importlib.import_module(module)
    monkeypatch.setattr(sys.modules[module], name, stop)
    done = pennyweight("quantize", source, tmp_path / "out", "--scheme", "W8A8-FP")
    assert (done.code, done.err) == (code, INTERRUPTED)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pennyweight", "quantize", *map(str, arguments)]


def test_interrupt_during_start_up_has_no_traceback(source: Path, tmp_path: Path) -> None:
    arguments = command(source, tmp_path / "out", "--scheme", "W8A8-FP")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch_cpu" not in maps.read_text():  # torch is being imported
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, INTERRUPTED)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_line(source: Path, tmp_path: Path) -> None:
    limited = ["bash", "-c", 'ulimit -f 100; exec "$@"', "bash"]  # blocks of 1024 bytes, for each file
    arguments = command(source, tmp_path / "out", "--scheme", "W8A8-FP")
    done = subprocess.run([*limited, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the disk is full or a file-size limit was met" in done.stderr
    assert list(tmp_path.iterdir()) == []
