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
#: Order of `limit()` in limits.cpp; copy comes with stores around the caches and with plain ones.
READ, COPY_AROUND, COPY_PLAIN = range(3)
PEAKS = {name: i for i, name in enumerate(("vnni", "bf16", "fma", "fma256", "madd16", "madd8"), start=3)}


@dataclass
class Limits:
    """Bytes per second (``copy``: read plus written), and operations (a multiplication or an addition) per second.

    0 where it was not measured, or the processor lacks the instruction: ``vnni`` vpdpbusd and ``bf16`` vdpbf16ps of
    512 bits, ``fma`` the widest vfmadd231ps there is; of 256 bits ``fma256`` vfmadd231ps, ``madd16`` vpmaddwd with
    vpaddd, ``madd8`` vpmaddubsw with vpaddw.
    """

    read: float = 0.0
    copy: float = 0.0
    vnni: float = 0.0
    bf16: float = 0.0
    fma: float = 0.0
    fma256: float = 0.0
    madd16: float = 0.0
    madd8: float = 0.0

    def instruction(self, op: str, impl: str | None = None) -> str | None:
        """Name the limit of the instruction that an implementation of a linear layer multiplies with.

        None where the processor lacks it, and for plain loops.

        Args:
            op: The op, which says what is multiplied: INT8 codes, nibbles by INT8 codes, or floats.
            impl: The implementation; None: the best instruction of this machine.
        """
        if impl == "reference":
            return None
        name = self._instruction(op, impl)
        return name if getattr(self, name) else None

    def _instruction(self, op: str, impl: str | None) -> str:
        bytes_of_256 = "madd8" if "w4a8" in op else "madd16"
        if impl == "avx2":
            return bytes_of_256 if "int8" in op else "fma256"
        if "int8" in op:
            return "vnni" if self.vnni else bytes_of_256
        return "bf16" if self.bf16 and impl != "avx512vnni" else "fma"

    def or_better(self, other: Limits) -> Limits:
        """Return the higher of two measurements of each: other programs only ever take away."""
        return Limits(*map(max, asdict(self).values(), asdict(other).values()))

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def library(folder: Path = HERE.parent / ".cache") -> Path:
    """Compile limits.cpp for this machine into a folder, once."""
    library = folder / "limits.so"
    source = HERE / "limits.cpp"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        folder.mkdir(exist_ok=True)
        flags = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
        subprocess.run([os.environ.get("CXX", "c++"), *flags, str(source), "-o", str(library)], check=True)
    return library


class Memory:
    """A buffer in huge pages, larger than the caches: to measure bandwidth with and to evict everything else.

    Args:
        threads: How many run at once.
        cache_bytes: Size of the last-level cache.
        code: limits.so; compiled when not given. Workers, which have no compiler, are given it.
    """

    def __init__(self, threads: int, cache_bytes: int, code: Path | None = None) -> None:
        self.threads = threads
        self.bytes = max(2 * cache_bytes, 256 << 20)
        self._code = ctypes.CDLL(str(code or library()))
        self._code.limit.restype = ctypes.c_double
        self._code.limit.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_long]
        self._code.evict.restype = None
        self._code.evict.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_long]
        self._pages = mmap.mmap(-1, self.bytes)
        self._pages.madvise(mmap.MADV_HUGEPAGE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self._copy: int | None = None
        ctypes.memset(self._address, 1, self.bytes)  # first touch: pages that are only read may all be one

    def limit(self, what: int) -> float:
        """Measure one limit once."""
        return float(self._code.limit(what, self.threads, self._address, self.bytes))

    def best(self, what: int, rounds: int = 3) -> float:
        """Measure one limit; the best of some rounds."""
        return max(self.limit(what) for _ in range(rounds))

    def read(self) -> float:
        """Bytes per second that all threads read together, once."""
        return self.limit(READ)

    def copy(self) -> float:
        """Bytes per second, read plus written, that all threads copy together, once; by the faster kind of store."""
        if self._copy is None:
            self._copy = max((COPY_AROUND, COPY_PLAIN), key=self.best)
        return self.limit(self._copy)

    def read_of(self, address: int, bytes_: int) -> float:
        """Seconds that reading somebody else's memory takes."""
        return bytes_ / float(self._code.limit(READ, self.threads, address, bytes_))

    def evict(self) -> None:
        """Push everything else out of the caches, by reading at least twice the last-level cache."""
        self._code.evict(self.threads, self._address, self.bytes)

    def limits(self, rounds: int = 3) -> Limits:
        """Measure every limit; the best of some rounds, ten times as many of an instruction's peak, which are short."""
        peaks = [self.best(what, 10 * rounds) for what in PEAKS.values()]
        return Limits(self.best(READ, rounds), max(self.copy() for _ in range(rounds)), *peaks)


def measure(threads: int, rounds: int = 3) -> Limits:
    """Measure every limit; the best of some rounds.

    Args:
        threads: How many run at once.
        rounds: Repetitions of each.
    """
    return Memory(threads, 64 << 20).limits(rounds)


if __name__ == "__main__":
    import sys

    for name, value in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2).to_dict().items():
        print(f"{name:6} {value / 1e9:8.1f} {'GB/s' if name in ('read', 'copy') else 'Gop/s'}")
