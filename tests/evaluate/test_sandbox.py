# SPDX-License-Identifier: Apache-2.0
"""Hostile programs: each is a failed sample within its limits, and the machine does not notice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import sandbox as module
from pennyweight.evaluate.sandbox import JAIL, Limits, Sandbox

LIMITS = Limits(memory_bytes=256 << 20, disk_bytes=4 << 20)  # 10 s, for busy machines
TIMED_OUT = "ran for more than 1 s"
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="namespaces are Linux's")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return Sandbox(LIMITS)
    except EvaluationError as error:
        pytest.skip(str(error))


#: Those that may end by time or otherwise.
ENDLESS = ("fills-memory", "kills-its-parent", "recurses", "floods-the-answer")
SECRET = "a secret of this machine"
HOSTILE = {
    "loops": ("while True: pass", TIMED_OUT),
    "sleeps": ("import time; time.sleep(60)", TIMED_OUT),
    "outlives-its-alarm": (
        "import signal, time\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: time.sleep(9)",
        TIMED_OUT,
    ),
    "forks": ("import os\nwhile True: os.fork()", "BlockingIOError"),
    "starts-threads": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()",
        "RuntimeError: can't start new thread",
    ),
    "starts-a-program": ("import subprocess; subprocess.run(['/bin/sh'])", "Error"),
    "fills-memory": ("x = []\nwhile True: x.append(bytearray(1 << 24))", ""),
    "wants-all-memory": ("x = bytearray(1 << 40)", "MemoryError"),
    "fills-a-file": (
        "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 16)); f.flush()",
        "OSError: [Errno 27] File too large",
    ),
    "fills-the-disk": (
        "for i in range(999): open(f'/tmp/{i}', 'wb').write(bytes(1 << 20))",
        "OSError: [Errno 28] No space left",
    ),
    "makes-many-files": ("for i in range(10**6): open(f'/tmp/{i}', 'wb').close()", "OSError: [Errno 28]"),
    "reads-passwd": (
        "raise Exception(open('/etc/passwd').read())",
        "FileNotFoundError",
    ),
    "reads-a-process": ("open('/proc/1/environ').read()", "FileNotFoundError"),
    "writes-outside": (f"open({str(Path.home() / 'x')!r}, 'w')", "Error"),
    "writes-libraries": ("import os; open(os.__file__, 'w')", "Read-only file system"),
    "opens-a-socket": (
        "import socket; socket.create_connection(('127.0.0.1', 1), timeout=5)",
        "Error",
    ),
    "kills-its-parent": ("import os\nwhile True: os.kill(os.getppid(), 9)", ""),
    "kills-everything": ("import os; os.kill(-1, 9); raise Exception", ""),
    "kills-its-group": ("import os; os.kill(0, 9)", "was ended by SIGKILL"),
    "makes-namespaces": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\nassert c.unshare(0x10000000) == 0, ctypes.get_errno()",
        "AssertionError: 28",
    ),
    "exits": ("import os; os._exit(0)", "exited with 0 before its tests were done"),
    "raises-exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "crashes": ("import ctypes; ctypes.string_at(8)", "was ended by SIGSEGV"),
    "recurses": (
        "import sys; sys.setrecursionlimit(1 << 30)\nf = lambda x: f(x + 1) + 1\nf(0)",
        "",
    ),
    "floods-its-output": ("while True: print('x' * 10**6)", TIMED_OUT),
    "floods-the-answer": (
        "import os\nfor f in range(3, 32):\n  try: os.write(f, b'x' * 10**8)\n  except OSError: pass",
        "",
    ),
    "closes-the-answer": ("import os; os.closerange(0, 32)", "exited with 1"),
    "forges-an-answer": ('import os\nos.write(3, b\'{"token": "0", "why": ""}\\n\')\nos._exit(0)', ""),
    "does-not-parse": ("def f(:", "SyntaxError"),
    "raises-something-odd": (
        "class E(BaseException):\n  def __str__(self): raise self\nraise E",
        "",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_sandbox_contains(sandbox: Sandbox, name: str) -> None:
    program, why = HOSTILE[name]
    if why == TIMED_OUT or name in ENDLESS:
        sandbox.limits = replace(sandbox.limits, seconds=1)
    verdict = sandbox.run(program)
    sandbox.limits = LIMITS
    assert not verdict.passed
    assert why in verdict.why
    assert "\n" not in verdict.why and len(verdict.why) <= 320
    assert "root:" not in verdict.why


def test_sandbox_runs_what_is_right(sandbox: Sandbox) -> None:
    code = "import math, re, collections, json\nopen('/tmp/x', 'w').write('x')\nassert math.sqrt(4) == 2"
    assert sandbox.run(code) == module.Verdict(True)
    assert sandbox.run("import numpy; assert numpy.ones(3).sum() == 3") == module.Verdict(True)
    assert sandbox.run("import os; assert not os.path.exists('/tmp/x')").passed  # each has its own /tmp
    assert sandbox.run("assert False, 'two\\nlines'").why == "AssertionError: two lines"


def test_sandbox_shows_no_environment_and_no_home(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert sandbox.run(f"import os; assert {SECRET!r} not in str(dict(os.environ))").passed
    seen = sandbox.run("import os; raise Exception(sorted(os.listdir('/')))").why
    assert "etc" not in seen and "proc" not in seen and "home" not in seen
    repository = str(Path(__file__).parents[2] / "pyproject.toml")
    assert sandbox.run(f"import os; assert not os.path.exists({repository!r})").passed


def test_sandbox_reaches_no_server_of_this_machine(sandbox: Sandbox) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        program = (
            f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=1)"
        )
        assert not sandbox.run(program).passed
        subprocess.run([sys.executable, "-c", program], check=True)  # the address is right


def test_sandbox_leaves_nothing_behind(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for program in ("open('/tmp/x', 'w')", "import os; os.kill(os.getpid(), 9)"):
        sandbox.run(program)
    assert list(tmp_path.iterdir()) == []
    assert not _jails()


def test_sandbox_dies_with_its_caller(sandbox: Sandbox) -> None:
    """Killed outright, the caller leaves no program running."""
    code = (
        "from pennyweight.evaluate.sandbox import Limits, Sandbox\n"
        "box = Sandbox(Limits(seconds=60)); print('x', flush=True); box.run('while True: pass')"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    with caller.stdout:
        caller.stdout.readline()
        _wait(lambda: len(_jails()) == 3)  # launcher, process 1, program
        caller.kill()
        caller.wait()
    _wait(lambda: not _jails())


def test_run_all_keeps_the_order(sandbox: Sandbox) -> None:
    verdicts = sandbox.run_all([f"assert {i} % 3" for i in range(8)])
    assert [verdict.passed for verdict in verdicts] == [bool(i % 3) for i in range(8)]


def test_sandbox_refuses_without_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "jail.py"
    broken.write_text(JAIL.read_text().replace("def enter_namespaces() -> None:", "def enter_namespaces() -> None:\n"
                      "    raise OSError(1, 'Operation not permitted')"))  # fmt: skip
    monkeypatch.setattr(module, "JAIL", broken)
    with pytest.raises(EvaluationError, match=r"Operation not permitted.*--allow-weak-jail"):
        Sandbox()
    weak = Sandbox(Limits(seconds=1), weak=True)
    assert not weak.full
    assert weak.run("assert True").passed
    assert weak.run("while True: pass").why == TIMED_OUT
    assert not weak.run("import os\nwhile True: os.fork()").passed
    assert not weak.run("x = bytearray(1 << 40)").passed


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        ("if os.path.isdir(path)]", "if os.path.isdir(path)] + ['/etc']", "/etc/passwd can be seen"),
        ("0x20000000 | 0x40000000", "0x20000000", "it has a network"),
        ('(resource.RLIMIT_NPROC, limits["processes"])', "(resource.RLIMIT_CORE, 0)", "exited with 1"),
    ],
    ids=["file-system", "network", "processes"],
)
def test_the_probe_finds_a_hole(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: str, bad: str, reason: str
) -> None:
    source = JAIL.read_text()
    assert good in source
    (tmp_path / "jail.py").write_text(source.replace(good, bad))
    monkeypatch.setattr(module, "JAIL", tmp_path / "jail.py")
    with pytest.raises(EvaluationError, match=reason):
        Sandbox()


def test_sandbox_works_without_root() -> None:
    """The same jail, run by a user who is not root, in the system's Python."""
    if os.getuid() != 0 or not os.path.exists("/usr/bin/python3"):
        pytest.skip("not root: the other tests are this one")
    become = "import os; os.setgroups([]); os.setresgid(*[12345] * 3); os.setresuid(*[12345] * 3);"
    hostile = [module.PROBE, HOSTILE["fills-the-disk"][0], "import os; os.kill(1, 9)"]
    with tempfile.TemporaryDirectory() as folder:  # pytest's are closed to other users
        os.chmod(folder, 0o755)
        jail = shutil.copy(JAIL, folder)
        root = Path(folder) / "root"
        root.mkdir()
        os.chown(root, 12345, 12345)
        run = f"{become} os.execv('/usr/bin/python3', ['python3', '-I', {jail!r}])"
        for program, why in zip(hostile, ("", "No space", ""), strict=True):
            order = {
                "program": program, "token": "t", "root": str(root), "full": True, "parent": os.getpid(),
                "limits": {"seconds": 5, "memory_bytes": 1 << 28, "disk_bytes": 1 << 20, "processes": 1},
            }  # fmt: skip
            done = subprocess.run(
                ["/usr/bin/python3", "-c", run], input=json.dumps(order).encode(), stdout=subprocess.PIPE, timeout=60,
                check=False,
            )  # fmt: skip
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            assert lines and lines[0].get("token") == "t", lines
            assert why in lines[0]["why"] and bool(why) == bool(lines[0]["why"]), lines


def _jails() -> list[str]:
    """Processes of this process's user that run jail.py."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if str(JAIL).encode() in command:
                found.append(process.name)
    return found


def _wait(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_libraries_may_lie_under_tmp(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path(tempfile.gettempdir()) not in tmp_path.parents:
        pytest.skip("pytest's folders are not in the system's temporary one")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / "lib/marker.py").write_text("")
    monkeypatch.setattr(sys, "executable", str(venv / "bin/python"))
    program = f"import os; assert os.path.exists({str(venv / 'lib/marker.py')!r}); open('/tmp/x', 'w')"
    verdict = sandbox.run(program)
    assert verdict.passed, verdict.why
