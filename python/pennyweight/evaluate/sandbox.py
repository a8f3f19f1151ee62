# SPDX-License-Identifier: Apache-2.0
"""Runs programs that a model wrote: each in a process of its own, without network, with nothing to break.

`jail.py` is the inside of it and says how. Linux only; what the machine's kernel does not allow is found out by a probe
before the first program, and refused with its reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pennyweight.errors import EvaluationError

JAIL = Path(__file__).with_name("jail.py")
#: Seconds that the jail itself may take, on a busy machine, besides what the program may.
STARTING = 20.0
#: Bytes of answer that are read from a jail.
ANSWER_BYTES = 4096
#: The whole environment of a program: no keys, no paths. One thread, as it may have no more.
ENVIRONMENT = {
    "PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
}  # fmt: skip
#: Ends well only in a whole jail.
PROBE = """
import os, socket
for path in ("/etc/passwd", "/proc/self", "/sys"):
    if os.path.exists(path):
        raise RuntimeError(f"{path} can be seen")
if any(index for index, name in socket.if_nameindex() if name != "lo"):
    raise RuntimeError("it has a network")
try:
    os.fork()
except OSError:
    pass
else:
    os._exit(1)
open("/tmp/probe", "w").write("x")
"""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        seconds: From its start to its end; of processor time one second more.
        memory_bytes: Of address space.
        disk_bytes: Of /tmp, and of any one file.
        processes: Processes and threads together. 1: only itself, so that `memory_bytes` is all it can take.
    """

    seconds: float = 10.0
    memory_bytes: int = 1 << 30
    disk_bytes: int = 16 << 20
    processes: int = 1


@dataclass(frozen=True)
class Verdict:
    """How a program went: whether it ran to its end, and if not, why, in one line."""

    passed: bool
    why: str = ""


class Sandbox:
    """Runs programs one by one or several at once.

    Args:
        limits: Of each program.
        weak: Accept limits alone, where there can be no namespaces: programs then see the files of this user, reach the
            network, and could end this user's processes.
    Raises:
        EvaluationError: This machine cannot keep a program in, and `weak` does not accept that.
    """

    def __init__(self, limits: Limits | None = None, *, weak: bool = False) -> None:
        self.limits = limits or Limits()
        self.full = True
        reason = self._why_not()
        if reason is None:
            return
        if not weak:
            raise EvaluationError(
                f"generated code cannot be kept in on this machine ({reason}): run this where the kernel lets a user "
                "make namespaces, or accept limits on time, memory and files alone, with files and network open to "
                "the code, by --allow-weak-jail"
            )
        self.full = False
        reason = self._why_not()
        if reason is not None:
            raise EvaluationError(f"generated code cannot be run on this machine: {reason}")

    def run(self, program: str) -> Verdict:
        """Run a Python program; it passes when it runs to its end without an exception, an exit or a crash."""
        token = secrets.token_hex(16)
        with tempfile.TemporaryDirectory(prefix="pennyweight-", ignore_cleanup_errors=True) as root:
            if not self.full:
                os.chmod(root, 0o777)  # the program may be another user
            order = {
                "program": program, "token": token, "root": root, "full": self.full, "parent": os.getpid(),
                "limits": dataclasses.asdict(self.limits),
            }  # fmt: skip
            lines, ended = self._ask(order)
        return self._verdict(lines, ended, token)

    def run_all(
        self, programs: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> list[Verdict]:
        """Run programs, as many at once as there are processors, and return the verdicts in their order."""
        verdicts = []
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            try:
                for verdict in pool.map(self.run, programs):
                    verdicts.append(verdict)
                    if progress is not None:
                        progress(len(verdicts), len(programs))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return verdicts

    def _why_not(self) -> str | None:
        """Return why this kind of jail does not work here; None: it does."""
        if not sys.platform.startswith("linux"):
            return f"namespaces and limits are Linux's, this is {sys.platform}"
        verdict = self.run(PROBE if self.full else "import json")
        return None if verdict.passed else verdict.why

    def _ask(self, order: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """Return the lines that the jail wrote, and whether it ended in time."""
        jail = subprocess.Popen(
            [sys.executable, "-I", str(JAIL)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=ENVIRONMENT, start_new_session=True, cwd="/",
        )  # fmt: skip
        assert jail.stdin is not None and jail.stdout is not None
        with jail.stdin, jail.stdout:
            try:
                jail.stdin.write(json.dumps(order).encode())
                jail.stdin.close()
                data, ended = _read(jail.stdout.fileno(), self.limits.seconds + STARTING)
            except BrokenPipeError:
                data, ended = b"", True
            finally:
                _kill(jail)
        lines = []
        for line in data.splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue  # the program may write here too, if it finds out how
            if isinstance(found, dict):
                lines.append(found)
        return lines, ended

    def _verdict(self, lines: list[dict[str, Any]], ended: bool, token: str) -> Verdict:
        for line in lines:
            if "refused" in line:
                return Verdict(False, f"the jail: {line['refused']}")
            if line.get("token") == token:
                why = str(line.get("why"))
                return Verdict(not why, why)
        status = next((line["status"] for line in lines if isinstance(line.get("status"), int)), None)
        if not ended or status in (-signal.SIGALRM, -signal.SIGXCPU):
            return Verdict(False, f"ran for more than {self.limits.seconds:g} s")
        if status is None:
            return Verdict(False, "the jail ended without an answer")
        if status < 0:
            return Verdict(False, f"was ended by {_signal_name(-status)}")
        return Verdict(False, f"exited with {status} before its tests were done")


def _read(source: int, seconds: float) -> tuple[bytes, bool]:
    """Read a pipe to its end, but at most ANSWER_BYTES and for so long."""
    data, deadline = b"", time.monotonic() + seconds
    while len(data) < ANSWER_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([source], [], [], left)[0]:
            return data, False
        piece = os.read(source, ANSWER_BYTES)
        if not piece:
            break
        data += piece
    return data, True


def _kill(jail: subprocess.Popen[bytes]) -> None:
    """End the launcher's group; what is inside dies with the launcher (jail.py)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(jail.pid, signal.SIGKILL)
    jail.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
