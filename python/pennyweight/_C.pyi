# SPDX-License-Identifier: Apache-2.0
"""The kernel library on plain buffers (csrc/module.cpp): run any op and implementation on NumPy, one thread.

An op's arguments are those of its struct in kernels/include/pennyweight: buffers (or None), ints, floats, and
dtypes by name ("f32", "f16", "bf16", "i8", "u8", "i32"). Errors: ValueError (rule broken, unknown name),
TypeError, MemoryError.
"""

from collections.abc import Mapping
from typing import NoReturn, TypedDict

from typing_extensions import Buffer

class OpDescription(TypedDict):
    fields: list[str]
    implementations: list[str]
    cuda: list[str]

class Card(TypedDict):
    compute: int  # 10 major + minor
    multiprocessors: int
    shared_bytes: int  # that one block may have

class Cuda(TypedDict):
    built: bool
    runtime: str | None
    architectures: list[str]
    driver: str

Argument = Buffer | int | float | str | None

version: str

def run(op: str, args: Mapping[str, Argument], implementation: str | None = None) -> None:
    """Run an op, writing its outputs into the buffers given; `implementation` forces one for this call."""

def why_not(op: str, args: Mapping[str, Argument]) -> list[tuple[str, str | None]]:
    """Each implementation, best first, with the reason why it does not take these arguments, or None."""

def cuda_why_not(
    op: str, args: Mapping[str, Argument], compute: int, multiprocessors: int, shared_bytes: int
) -> list[tuple[str, str | None]]:
    """Like why_not, of the implementations for cards, on such a card."""

def card(index: int) -> Card:
    """What a card of this machine is; ValueError where it cannot be used."""

def last_cuda_run(op: str) -> str | None:
    """The implementation for cards that was begun last, or None."""

def choose(op: str, args: Mapping[str, Argument]) -> str:
    """The implementation that run() would take."""

def ops() -> dict[str, OpDescription]:
    """Every op: its arguments, its implementations and those for cards, best first."""

def last_run(op: str) -> str | None:
    """The implementation that ran last, or None."""

def run_counts(op: str) -> dict[str, int]:
    """How often each implementation has run."""

def force(implementation: str | None) -> None:
    """Force an implementation by name for every op; None: the best that fits."""

def forced() -> str | None:
    """The forced implementation's name, or None."""

def raise_interrupt() -> NoReturn:
    """Raise what a signal handler raised while an op ran."""

def strict() -> bool:
    """Whether PENNYWEIGHT_STRICT is on."""

def features() -> dict[str, bool | int]:
    """What the processor can do, and its cache sizes in bytes."""

def cuda() -> Cuda:
    """Whether CUDA was built in, runtime, architectures (CMake's words), the driver or why there is none."""
