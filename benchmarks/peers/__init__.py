# SPDX-License-Identifier: Apache-2.0
"""The programs that we are measured against, each runtime in a process and an environment of its own (`make peers`).

A worker is stopped (SIGSTOP) whenever it has nothing to do, so that its idle threads spin at nobody's cost.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".cache" / "peers"
#: Every peer: the op of ours that computes the same kind of product. ggml's integer types quantize activations to INT8.
PEERS = {
    "torch_bf16": "linear_bf16",
    "torch_bf16_prepacked": "linear_bf16",
    "zentorch_bf16": "linear_bf16",
    "vllm_bf16": "linear_bf16",
    "ggml_bf16": "linear_bf16",
    "torch_int8_x86": "linear_w8a8_int8",
    "torch_int8_onednn": "linear_w8a8_int8",
    "zentorch_int8_dyn": "linear_w8a8_int8",
    "vllm_int8": "linear_w8a8_int8",
    "ggml_q8_0": "linear_w8a8_int8",
    "torch_fp8_scaled_mm": "linear_w8a8_fp8",
    "torch_fp8_dequantized": "linear_w8a8_fp8",
    "torch_int4pack": "linear_w4a16",
    "zentorch_woq": "linear_w4a16",
    "vllm_w4a16": "linear_w4a16",
    "zentorch_da8w4": "linear_w4a8_int8",
    "ggml_q4_0": "linear_w4a8_int8",
    "ggml_q4_K": "linear_w4a8_int8",
}
#: What a right result may be off by, relative to the product of the weight before it was quantized (Frobenius norms;
#: about twice what each format loses on normally distributed weights).
MOST_ERROR = {
    "linear_bf16": 0.01,
    "linear_w8a8_int8": 0.03,
    "linear_w8a8_fp8": 0.08,
    "linear_w4a16": 0.2,
    "linear_w4a8_int8": 0.2,
}


def runtime_of(name: str) -> str:
    """Return what a peer runs in: the first word of its name."""
    return name.partition("_")[0]


RUNTIMES = tuple(dict.fromkeys(map(runtime_of, PEERS)))


class PeerFailed(Exception):
    """A peer could not do it; the text says why."""


def chosen(wanted: str) -> list[str]:
    """Read a list of peers: "all", "none", "bf16" (torch's two), runtimes and names, by commas."""
    groups = {"all": list(PEERS), "none": [], "bf16": ["torch_bf16", "torch_bf16_prepacked"]}
    groups |= {r: [p for p in PEERS if runtime_of(p) == r] for r in RUNTIMES}
    groups |= {p: [p] for p in PEERS}
    names = wanted.split(",")
    unknown = [name for name in names if name not in groups]
    if unknown:
        sys.exit(f"--peers: {', '.join(unknown)} is none of {', '.join(groups)}")
    return [p for p in PEERS if any(p in groups[name] for name in names)]


def python(runtime: str) -> Path | None:
    """Return the interpreter that has a runtime, or None where it is not installed. torch is in our own."""
    if runtime == "torch":
        return Path(sys.executable)
    environment = ENVIRONMENTS / runtime
    return environment / "bin" / "python" if (environment / ".ready").exists() else None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG: a stopped worker sees no closed pipe


class Worker:
    """A runtime's process; see worker.py for what it answers.

    Args:
        runtime: Its name.
        interpreter: The Python that has it.
        arguments: Of the script, after the runtime's name.
        patience: Seconds after which a command is given up.
        script: What it runs.
    """

    def __init__(
        self,
        runtime: str,
        interpreter: Path,
        arguments: list[str],
        patience: float = 300,
        script: str = "worker.py",
    ) -> None:
        self.runtime, self._patience = runtime, patience
        self._process = subprocess.Popen(
            [str(interpreter), str(HERE / script), runtime, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=_die_with_parent,
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer, the process running meanwhile and only then.

        Raises:
            PeerFailed: The peer said no, died, or took too long.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], self._patience)[0]:
            self._process.kill()
            raise PeerFailed(f"no answer to {command['do']} within {self._patience:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            died = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise PeerFailed(f"its process ended at {command['do']} ({died})")
        self._process.send_signal(signal.SIGSTOP)
        still = os.WSTOPPED | os.WEXITED | os.WNOWAIT
        os.waitid(os.P_PID, self._process.pid, still)  # the signal is only on its way before
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise PeerFailed(answer["failed"])
        return answer

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # of a command that it did not live to read
            self._process.communicate()


class Crew:
    """The workers of a run and the peers that work, with the files that weights and activations travel in.

    Args:
        names: Peers wanted.
        arguments: Of worker.py, after the runtime's name.
    """

    def __init__(self, names: list[str], arguments: list[str]) -> None:
        self._arguments = arguments
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self._workers: dict[str, Worker] = {}
        self._shape, self._m = (0, 0), 0
        wanted = dict.fromkeys(map(runtime_of, names))
        self.absent = {r: f"not installed: make peers PEERS={r}" for r in wanted if python(r) is None}
        self.names = [n for n in names if runtime_of(n) not in self.absent]
        #: Bytes that one call reads of the weight, by peer that took it; why the others did not.
        self.sizes: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    def _file(self, name: str) -> str:
        return str(Path(self._folder.name) / name)

    def _worker(self, runtime: str) -> Worker:
        """Return a runtime's worker, a new one where the last has ended."""
        worker = self._workers.get(runtime)
        if worker and not worker.alive:
            worker.close()
        if worker is None or not worker.alive:
            interpreter = python(runtime)
            assert interpreter is not None
            worker = self._workers[runtime] = Worker(runtime, interpreter, self._arguments)
        return worker

    def prepare(self, weight: np.ndarray) -> None:
        """Give every peer a weight (N, K) float32; ``sizes`` and ``refused`` say who took it."""
        self._shape, self._m = weight.shape, 0
        np.ascontiguousarray(weight, np.float32).tofile(self._file("weight"))
        self.sizes, self.refused = {}, {}
        for runtime in dict.fromkeys(map(runtime_of, self.names)):
            self._prepare([name for name in self.names if runtime_of(name) == runtime])

    def _prepare(self, names: list[str]) -> None:
        """Prepare one runtime's peers; over again without the one that ended the process."""
        if not names:
            return
        worker = self._worker(runtime_of(names[0]))
        name = ""
        try:
            worker.ask(do="weight", file=self._file("weight"), n=self._shape[0], k=self._shape[1])
            for name in names:
                try:
                    self.sizes[name] = worker.ask(do="prepare", peer=name)["bytes"]
                except PeerFailed as why:
                    if not worker.alive:
                        raise
                    self.refused[name] = str(why)
            if self._m:
                worker.ask(do="input", file=self._file("x"), m=self._m, k=self._shape[1])
        except PeerFailed as why:
            lost = [name] if name else names
            self.refused.update(dict.fromkeys(lost, str(why)))
            self._prepare([n for n in names if n not in self.refused])

    def input(self, x: np.ndarray) -> None:
        """Give every worker activations (M, K) float32."""
        self._m = len(x)
        np.ascontiguousarray(x, np.float32).tofile(self._file("x"))
        for runtime in dict.fromkeys(map(runtime_of, self.sizes)):
            self._workers[runtime].ask(do="input", file=self._file("x"), m=len(x), k=x.shape[1])

    def _ask(self, name: str, **command: Any) -> float:
        """Let a peer do something; the seconds it took. One that ends its process is given up, the others go on."""
        runtime = runtime_of(name)
        try:
            return float(self._worker(runtime).ask(peer=name, **command)["seconds"])
        except PeerFailed as why:
            if not self._workers[runtime].alive:
                self.refused[name] = str(why)
                del self.sizes[name]
                self._prepare([n for n in self.sizes if runtime_of(n) == runtime])
            raise

    def run(self, name: str) -> tuple[np.ndarray, float]:
        """Return a peer's result (M, N) and how long its second call took, in seconds."""
        seconds = self._ask(name, do="run", file=self._file("y"))
        return np.fromfile(self._file("y"), np.float32).reshape(self._m, self._shape[0]), seconds

    def time(self, name: str) -> float:
        """Return the seconds of one call with a cold weight."""
        return self._ask(name, do="time")

    def close(self) -> None:
        """End all."""
        for worker in self._workers.values():
            worker.close()
        self._folder.cleanup()


@contextlib.contextmanager
def crew(names: list[str], arguments: list[str]) -> Iterator[Crew]:
    """Have workers for the time of a block."""
    made = Crew(names, arguments)
    try:
        yield made
    finally:
        made.close()
