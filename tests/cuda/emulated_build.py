# SPDX-License-Identifier: Apache-2.0
"""Builds of the kernels for cards against the emulator, and runs of what they give."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {
    "TSAN_OPTIONS": "halt_on_error=1 exitcode=66",
    "ASAN_OPTIONS": "detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
Build = Callable[[str], Path]


def run(*command: str | Path, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
    """Run a program with the sanitizers set to stop at what they find; output is in ``stdout``."""
    return subprocess.run(
        [str(part) for part in command],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def build(kind: str) -> Path:
    """Build the tests against the emulator, kind none, address or thread (the sanitizer), and return the folder."""
    folder = ROOT / f"build/emulated-{kind}"
    launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    source = ROOT / "tests/cuda"
    configured = run("cmake", "-G", "Ninja", "-S", source, "-B", folder, f"-DSANITIZE={kind}", *launcher)
    assert configured.returncode == 0, configured.stdout
    built = run("cmake", "--build", folder, "--parallel", "2", timeout=1200)
    assert built.returncode == 0, built.stdout
    return folder
