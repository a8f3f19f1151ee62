# SPDX-License-Identifier: Apache-2.0
"""What the machine can do at most, measured in the run that is judged by it (limits.cpp)."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
READ_BYTES = 256 << 20
#: Order of `limit()` in limits.cpp.
READ, VNNI, BF16, FMA = range(4)


@dataclass
class Limits:
    """Bytes per second, and operations (a multiplication or an addition) per second."""

    read: float
    vnni: float
    bf16: float
    fma: float

    def compute(self, op: str) -> float:
        """Return the peak of the best instruction this machine has for an op; 0: none measured."""
        if "int8" in op:
            return self.vnni
        return self.bf16 or self.fma

    def or_better(self, other: Limits) -> Limits:
        """Return the higher of two measurements of each: other programs only ever take away."""
        return Limits(*map(max, asdict(self).values(), asdict(other).values()))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def build() -> ctypes.CDLL:
    """Compile limits.cpp for this machine, once."""
    library = HERE.parent / ".cache" / "limits.so"
    source = HERE / "limits.cpp"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        library.parent.mkdir(exist_ok=True)
        flags = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
        subprocess.run([os.environ.get("CXX", "c++"), *flags, str(source), "-o", str(library)], check=True)
    code = ctypes.CDLL(str(library))
    code.limit.restype = ctypes.c_double
    code.limit.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_long]
    return code


def measure(threads: int, rounds: int = 3) -> Limits:
    """Measure every limit; the best of some rounds.

    Args:
        threads: How many run at once.
        rounds: Repetitions of each.
    """
    code = build()
    with mmap.mmap(-1, READ_BYTES) as buffer:
        buffer.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, READ_BYTES, 4096):
            buffer[page] = 1
        view = (ctypes.c_char * READ_BYTES).from_buffer(buffer)
        address = ctypes.addressof(view)

        def best(what: int) -> float:
            return max(float(code.limit(what, threads, address, READ_BYTES)) for _ in range(rounds))

        limits = Limits(best(READ), best(VNNI), best(BF16), best(FMA))
        del view
    return limits


if __name__ == "__main__":
    import sys

    for name, value in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2).to_dict().items():
        print(f"{name:5} {value / 1e9:8.1f} {'GB/s' if name == 'read' else 'Gop/s'}")
