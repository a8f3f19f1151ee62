# SPDX-License-Identifier: Apache-2.0
"""The machine code in the built library: registers, no stack, no local memory, the instructions that it is made for.

Needs a library built with nvcc, and the disassembler: pip install --no-deps nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm.
Where nvcc is on PATH, nothing here is skipped.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from budgets import ARCHITECTURES, BUDGETS, Budget

from pennyweight import _C

T = TypeVar("T")
TOOLS = [
    str(folder) for folder in Path(sysconfig.get_path("platlib")).glob("nvidia/cu*/bin") if folder.is_dir()
]
PATH = os.pathsep.join([*TOOLS, os.environ["PATH"], "/usr/local/cuda/bin"])


@dataclass
class Kernel:
    """One kernel for one architecture, as cuobjdump shows it."""

    name: str
    architecture: str
    registers: int = 0
    stack: int = 0
    local: int = 0
    shared: int = 0
    opcodes: set[str] = field(default_factory=set)
    instructions: int = 0


def library() -> Path:
    found = importlib.util.find_spec("pennyweight._C")
    assert found and found.origin
    return Path(found.origin).parent / "libpennyweight_kernels.so"


def cuobjdump(*flags: str) -> str:
    command = ["cuobjdump", *flags, str(library())]
    return subprocess.run(
        command, env=os.environ | {"PATH": PATH}, capture_output=True, text=True, check=True
    ).stdout


def demangled(names: list[str]) -> list[str]:
    return subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.fixture(scope="session")
def kernels() -> list[Kernel]:
    """Every kernel of the library for every architecture."""
    nvcc = shutil.which("nvcc", path=PATH)
    if not _C.cuda()["built"]:
        assert not nvcc, f"{nvcc} is here but pennyweight was built without CUDA; build it with PW_CUDA=ON"
        pytest.skip("NOT CHECKED: no nvcc, hence no machine code to look at")
    tool = shutil.which("cuobjdump", path=PATH)
    assert tool and shutil.which("nvdisasm", path=PATH), (
        "pip install --no-deps nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
    )
    found: dict[tuple[str, str], Kernel] = {}
    architecture = ""
    for line in cuobjdump("-res-usage").splitlines():
        if match := re.search(r"^arch = (\S+)|\.(sm_\w+)\.(?:elf\.)?(?:bin|cubin)", line):
            architecture = match[1] or match[2]
        elif match := re.search(r"Function (\S+):", line):
            name = match[1]
        elif match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            registers, stack, shared, local = map(int, match.groups())
            found[architecture, name] = Kernel(name, architecture, registers, stack, local, shared)
    for line in cuobjdump("-sass").splitlines():
        if match := re.search(r"^arch = (\S+)|code for (sm_\w+)", line):
            architecture = match[1] or match[2]
        elif match := re.search(r"Function : (\S+)", line):
            kernel = found[architecture, match[1]]
        elif match := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]+)", line):
            kernel.opcodes.add(match[1])
            kernel.instructions += 1
    names = demangled([kernel.name for kernel in found.values()])
    for kernel, name in zip(found.values(), names, strict=True):
        kernel.name = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    return list(found.values())


def of_architecture(value: "T | dict[str, T]", architecture: str, otherwise: T) -> T:
    return value.get(architecture, otherwise) if isinstance(value, dict) else value


def budget_of(kernel: Kernel) -> Budget | None:
    return next((budget for budget in BUDGETS if budget.kernel in kernel.name), None)


def faults(kernel: Kernel) -> list[str]:
    budget = budget_of(kernel)
    if budget is None:
        return ["has no budget; add one to tests/cuda/budgets.py"]
    found = []
    most = of_architecture(budget.registers, kernel.architecture, 255)
    if kernel.registers > most:
        found.append(f"{kernel.registers} registers, at most {most}")
    if kernel.stack or kernel.local:
        found.append(f"{kernel.stack} bytes of stack, {kernel.local} of local memory")
    for opcode in (*budget.lacks, "LDL", "STL"):
        if any(op.startswith(opcode) for op in kernel.opcodes):
            found.append(f"has {opcode}")
    for opcode in of_architecture(budget.contains, kernel.architecture, ()):
        if not any(op.startswith(opcode) for op in kernel.opcodes):
            found.append(f"lacks {opcode}")
    return found


def test_every_architecture_is_in_the_library(kernels: list[Kernel]) -> None:
    assert sorted({kernel.architecture for kernel in kernels}) == ARCHITECTURES
    per_architecture = {a: {k.name for k in kernels if k.architecture == a} for a in ARCHITECTURES}
    assert "compute_89" in cuobjdump("-lptx") or ".sm_89.ptx" in cuobjdump("-lptx"), "no PTX for later cards"
    assert all(per_architecture.values())


def test_machine_code_keeps_its_budget(kernels: list[Kernel], capsys: pytest.CaptureFixture[str]) -> None:
    bad = []
    rows: dict[str, dict[str, Kernel]] = {}
    for kernel in kernels:
        name = re.sub(r"\(pennyweight::cuda::(\w+)\)", r"\1 ", kernel.name).split("(")[0]
        rows.setdefault(name, {})[kernel.architecture] = kernel
        bad += [f"{kernel.name} {kernel.architecture}: {fault}" for fault in faults(kernel)]
    with capsys.disabled():
        print(
            f"\nregisters/instructions, stack and local memory 0\n{'':14}{''.join(f'{a:>12}' for a in ARCHITECTURES)}"
        )
        for name, row in sorted(rows.items()):
            cells = [f"{row[a].registers}/{row[a].instructions}" if a in row else "-" for a in ARCHITECTURES]
            print(f"{'':14}{''.join(f'{cell:>12}' for cell in cells)}  {name.replace('pennyweight::', '')}")
    assert not bad, "\n".join(bad)


def test_every_budget_is_of_a_kernel(kernels: list[Kernel]) -> None:
    unused = [b.kernel for b in BUDGETS if not any(b.kernel in k.name for k in kernels)]
    assert not unused
