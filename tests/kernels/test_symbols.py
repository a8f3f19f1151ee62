# SPDX-License-Identifier: Apache-2.0
"""What the kernel library shows and shares: no code compiled for one instruction set may be linked into another's."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ISA_FILE = re.compile(r"_(avx2|avx512vnni|avx512bf16)\.cpp\.o$")

pytestmark = pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not here")


def symbols(path: Path, *flags: str) -> list[tuple[str, str]]:
    """List (kind, demangled name)."""
    out = subprocess.run(["nm", "-C", *flags, str(path)], capture_output=True, text=True, check=True).stdout
    lines = (line.split(maxsplit=2) for line in out.splitlines())
    return [(parts[1], parts[2]) for parts in lines if len(parts) == 3]


def objects() -> list[Path]:
    built = ROOT.glob("build/*/CMakeFiles/pennyweight_kernels.dir/kernels/cpu/*.o")
    return [path for path in built if ISA_FILE.search(path.name)]


def test_isa_files_share_no_inline_code() -> None:
    """A weak symbol is code that the linker may take from any file, AVX-512 code for a machine without it."""
    if not objects():
        pytest.skip("built elsewhere: no object files here")
    weak = {
        (path.name, name)
        for path in objects()
        for kind, name in symbols(path, "--defined-only")
        if kind in "WVu" and not name.startswith("DW.ref")
    }
    assert not weak


def test_kernel_library_exports_its_interface_alone() -> None:
    folder = Path(importlib.util.find_spec("pennyweight._C").origin).parent  # type: ignore[union-attr,arg-type]
    shown = symbols(folder / "libpennyweight_kernels.so", "-D", "--defined-only")
    assert {name.split("(")[0] for kind, name in shown if kind == "T"} == {
        f"pennyweight::{name}"
        for name in ("choose", "choose_cuda", "cuda_op", "cuda_run_count", "cuda_state", "cuda_workspace_bytes",
                     "device", "find_card", "force", "forced", "last_cuda_run", "last_run", "op_info",
                     "prefer_huge_pages", "run", "run_count", "run_cuda",
                     "set_half_gemm", "set_interrupt_check", "strict")
    }  # fmt: skip
