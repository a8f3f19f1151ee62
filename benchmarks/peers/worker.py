# SPDX-License-Identifier: Apache-2.0
"""One peer's runtime in a process of its own: python worker.py RUNTIME THREADS LIMITS.SO CACHE_BYTES

It runs in the peer's environment, on numpy and what that environment has. Each line on standard input is a command in
JSON, each line on standard output its answer; arrays travel through files of float32. What libraries print goes to
standard error.

    {"do": "weight", "file": F, "n": N, "k": K}      takes a weight (N, K), forgets the last one
    {"do": "prepare", "peer": P}                     → {"bytes": what one call must read of the prepared weight}
    {"do": "input", "file": F, "m": M, "k": K}       takes activations (M, K)
    {"do": "run", "peer": P, "file": F}              calls twice, writes y (M, N) to F → {"seconds": of the second}
    {"do": "time", "peer": P}                        → {"seconds": one call, weight cold, activations and code warm}

A command that fails is answered by {"failed": why}. The module runtime_RUNTIME.py knows its peers:

    start(threads)                called first
    PEERS = {name: prepare}       prepare(weight (N, K) float32) → Peer
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import SMALL
from roofline import Memory


@dataclass
class Peer:
    """A prepared weight.

    Attributes:
        bytes: What one call must read of it.
        take: Activations (M, K) float32 to what ``call`` wants.
        call: The layer.
        give: Its result to float32 (M, N).
        warm: Reads the activations, so that they are in the caches.
    """

    bytes: int
    take: Callable[[np.ndarray], Any]
    call: Callable[[Any], Any]
    give: Callable[[Any], np.ndarray]
    warm: Callable[[Any], object]


def _read(file: str, rows: int, columns: int) -> np.ndarray:
    return np.memmap(file, np.float32, "c", shape=(rows, columns))  # "c": whoever writes to it gets a copy


class Session:
    """What a worker keeps between commands."""

    def __init__(self, runtime: Any, memory: Memory) -> None:
        self._runtime, self._memory = runtime, memory
        self._peers: dict[str, tuple[Peer, Peer]] = {}  # of the weight, of its first few outputs
        self._inputs: dict[str, tuple[Any, Any]] = {}

    def weight(self, file: str, n: int, k: int) -> dict[str, Any]:
        self._peers.clear()
        self._inputs.clear()
        self._weight = _read(file, n, k)
        return {}

    def prepare(self, peer: str) -> dict[str, Any]:
        prepare = self._runtime.PEERS[peer]
        self._peers[peer] = prepare(self._weight), prepare(self._weight[:SMALL])
        return {"bytes": self._peers[peer][0].bytes}

    def input(self, file: str, m: int, k: int) -> dict[str, Any]:
        self._inputs.clear()
        self._x = np.array(_read(file, m, k))
        return {}

    def run(self, peer: str, file: str) -> dict[str, Any]:
        p, small = self._peers[peer]
        x, _ = self._inputs[peer] = p.take(self._x), small.take(self._x)
        p.call(x)
        begin = time.perf_counter()
        y = p.call(x)
        seconds = time.perf_counter() - begin
        p.give(y).astype(np.float32, copy=False).tofile(file)
        return {"seconds": seconds}

    def time(self, peer: str) -> dict[str, Any]:
        (p, small), (x, small_x) = self._peers[peer], self._inputs[peer]
        self._memory.evict()
        p.warm(x)
        small.call(small_x)
        begin = time.perf_counter()
        p.call(x)
        return {"seconds": time.perf_counter() - begin}


def serve(session: Session, commands: Any, answers: Any) -> None:
    """Answer commands until there are no more."""
    for line in commands:
        command = json.loads(line)
        try:
            answer = getattr(session, command.pop("do"))(**command)
        except Exception as error:  # whatever a peer throws becomes its line in the report
            answer = {"failed": f"{type(error).__name__}: {error}"[:500]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, threads, code, cache_bytes = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    sys.modules.setdefault("worker", sys.modules["__main__"])  # one Peer, for the runtime too
    runtime = importlib.import_module("runtime_" + name)
    runtime.start(threads)
    serve(Session(runtime, Memory(threads, cache_bytes, code)), sys.stdin, answers)
