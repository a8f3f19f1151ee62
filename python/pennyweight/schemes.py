# SPDX-License-Identifier: Apache-2.0
"""Schemes: what a quantized linear layer stores and computes."""

import difflib
from dataclasses import dataclass

from pennyweight.errors import UnsupportedError

_BITS = {"fp8": 8, "int8": 8, "int4": 4}
_GROUPS = (-1, 32, 64, 128)


@dataclass(frozen=True)
class Scheme:
    """What a quantized linear layer stores and computes.

    Attributes:
        name: "W8A8-FP", "W8A8-INT" or "W4A16-INT".
        weight: Element type of the stored codes: "fp8" (E4M3), "int8" or "int4".
        bits: Of a stored code.
        group_size: Consecutive weights along K that share a scale; -1: the whole output channel.
        symmetric: Whether zero is at code 0; otherwise each group has a zero point (4-bit weights only).
        activation: Element type that activations are quantized to, per token at run time; None: left alone.

    Raises:
        UnsupportedError: no kernel stores such weights.
    """

    name: str
    weight: str
    bits: int
    group_size: int = -1
    symmetric: bool = True
    activation: str | None = None

    def __post_init__(self) -> None:
        if _BITS.get(self.weight) != self.bits:
            raise UnsupportedError(
                f"{self.name}: weights are fp8 or int8 (8 bits) or int4 (4 bits); got {self}"
            )
        if self.weight != "int4" and (self.group_size != -1 or not self.symmetric):
            raise UnsupportedError(
                f"{self.name}: 8-bit weights have one scale per channel and no zero points; "
                f"got group_size={self.group_size}, symmetric={self.symmetric}; use -1 and True"
            )
        if self.group_size not in _GROUPS:
            raise UnsupportedError(
                f"{self.name}: group_size must be 32, 64, 128 or -1 (the channel); got {self.group_size}"
            )


_SCHEMES = (
    Scheme("W8A8-FP", "fp8", 8, activation="fp8"),
    Scheme("W8A8-INT", "int8", 8, activation="int8"),
    Scheme("W4A16-INT", "int4", 4, group_size=128),
)
_ALIASES = {"FP8_DYNAMIC": "W8A8-FP", "W8A8": "W8A8-INT", "W4A16": "W4A16-INT"}  # compressed-tensors' presets


def names() -> list[str]:
    """The names of all schemes, without aliases."""
    return [s.name for s in _SCHEMES]


def scheme(name: str) -> Scheme:
    """The scheme of this name, case not minded.

    Args:
        name: "W8A8-FP", "W8A8-INT", "W4A16-INT", or the alias FP8_DYNAMIC, W8A8 or W4A16.
    Raises:
        UnsupportedError: no scheme has this name; the text has the nearest ones.
    """
    wanted = name.upper()
    wanted = _ALIASES.get(wanted, wanted)
    for candidate in _SCHEMES:
        if candidate.name == wanted:
            return candidate
    known = [*names(), *_ALIASES]
    near = difflib.get_close_matches(name.upper(), known, cutoff=0.4) or known
    raise UnsupportedError(
        f"scheme: '{name}' is not known; did you mean {', '.join(near)}? All: {', '.join(known)}"
    )
