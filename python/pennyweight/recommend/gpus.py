# SPDX-License-Identifier: Apache-2.0
"""GPUs by name: memory, bandwidth and peaks, from data/gpus.json, where each has its source."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pennyweight.recommend.names import find, plain
from pennyweight.schemes import scheme

DATA = Path(__file__).parent / "data"
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: For instance "a100", as prices have it.
        title: Its full name.
        memory: Bytes.
        bandwidth: Of its memory, bytes a second.
        peaks: By "bf16", "int8", "fp8": operations a second, dense, a multiplication and an addition counted as two.
        link: To the others of its node, bytes a second in one direction.
        node: GPUs of a node.
        capability: CUDA's.
        source: Where these are from.
    """

    name: str
    title: str
    memory: float
    bandwidth: float
    peaks: Mapping[str, float]
    link: float
    node: int
    capability: str
    source: str

    def why_not(self, format_: str) -> str | None:
        """Return why a format is not computed as such on this GPU; None: it is."""
        activation = None if format_ == "BF16" else scheme(format_).activation
        if activation is None or activation in self.peaks:
            return None
        if activation == "fp8":
            return (
                f"{self.title} has no FP8 arithmetic (compute capability {self.capability}; 8.9 is the first): "
                "take W8A8-INT"
            )
        return (
            f"vLLM has no INT8 kernels for {self.title} (compute capability {self.capability}): take W8A8-FP"
        )

    def peak(self, format_: str) -> float:
        """Return operations a second of the linear layers of a format: those of its activations' type."""
        activation = None if format_ == "BF16" else scheme(format_).activation
        return self.peaks[activation or "bf16"]


def gpu(name: str) -> Gpu:
    """Return the GPU of this name or alias; MeasurementError with the nearest names where there is none."""
    return find(name, _all(), "GPU", names())


def known(name: str) -> Gpu | None:
    """Return the GPU of this name or alias; None where there is none."""
    return _all().get(plain(name))


def names() -> list[str]:
    """Return the names of all GPUs, without aliases."""
    return list(dict.fromkeys(found.name for found in _all().values()))


@functools.cache
def _all() -> dict[str, Gpu]:
    raw = json.loads((DATA / "gpus.json").read_text(encoding="utf-8"))
    result: dict[str, Gpu] = {}
    for one in raw["gpus"]:
        found = Gpu(
            one["name"], one["title"], one["memory_gib"] * GIB, one["bandwidth_gb_s"] * 1e9,
            {kind: peak * 1e12 for kind, peak in one["peak_tera_s"].items()}, one["link_gb_s"] * 1e9,
            one["node_gpus"], one["capability"], one["source"],
        )  # fmt: skip
        result |= {plain(name): found for name in (one["name"], *one["aliases"])}
    return result
