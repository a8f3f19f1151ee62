# SPDX-License-Identifier: Apache-2.0
"""Kernels broken on purpose: what is changed, and which check must catch it with which words."""

from dataclasses import dataclass


@dataclass
class Broken:
    """One change to one file.

    Attributes:
        name: What is wrong.
        file: In kernels/cuda.
        unit: The .cu to compile anew; ``file`` itself, or one that includes it.
        old: Text that is there exactly once.
        new: What takes its place.
        check: The build that must catch it: none (a wrong result or a deadlock), address or thread.
        says: Words of the failure.
        cases: Which tests are run, part of their names.
        compute: The card.
    """

    name: str
    file: str
    unit: str
    old: str
    new: str
    check: str
    says: str
    cases: str
    compute: str = "80"


RACE = "data race"
OVERFLOW = "heap-buffer-overflow"

VARIANTS: list[Broken] = []
