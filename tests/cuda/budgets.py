# SPDX-License-Identifier: Apache-2.0
"""What the machine code of each kernel may need and must contain, per architecture."""

from dataclasses import dataclass, field


@dataclass
class Budget:
    """Of all kernels whose demangled name contains ``kernel``.

    Attributes:
        kernel: Part of the name.
        registers: The most per thread, on every architecture or by architecture ("sm_80").
        contains: Instructions (prefixes of SASS opcodes) that must be there, on every architecture or by architecture.
        lacks: Instructions that must not be there. Local memory (LDL, STL) and a stack are refused in every kernel.
    """

    kernel: str
    registers: int | dict[str, int]
    contains: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    lacks: tuple[str, ...] = field(default=())


ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a"]

BUDGETS = [Budget("nothing", 16)]
