# SPDX-License-Identifier: Apache-2.0
"""What `pw.quantize` did: per layer and in total."""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass, field
from typing import Any

from pennyweight.grid import aligned, html_table

#: Version of the keys of `Report.to_dict`.
VERSION = 1
COLUMNS = ("layer", "shape", "algorithm", "output error", "weight error", "damping", "tokens", "seconds")


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        name: Module name in the model.
        shape: (N, K).
        algorithm: "rtn" or "gptq"; "rtn (gptq failed)" where the Hessian was never positive definite.
        output_error: |X (W - Q)^T| / |X W^T| over the calibration tokens, the weights' error alone; None
            without data.
        weight_error: |W - Q| / |W|.
        damping: What GPTQ added to the Hessian's diagonal, as a share of its mean; None without GPTQ.
        tokens: Calibration tokens that the layer saw.
        seconds: Time for its scales and codes.
    """

    name: str
    shape: tuple[int, int]
    algorithm: str
    output_error: float | None
    weight_error: float
    damping: float | None
    tokens: int
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """Return the layer's row of the table."""
        return (
            self.name,
            f"{self.shape[0]} x {self.shape[1]}",
            self.algorithm,
            "-" if self.output_error is None else f"{100 * self.output_error:.3f} %",
            f"{100 * self.weight_error:.3f} %",
            "-" if self.damping is None else f"{self.damping:g}",
            str(self.tokens) if self.tokens else "-",
            f"{self.seconds:.2f}",
        )


@dataclass
class Report:
    """A whole model. Shows itself as a table in a terminal and in a notebook.

    Attributes:
        recipe: The recipe's fields, the study's values filled in.
        calibration: Where the data came from, rows and length; None without data.
        layers: In the order of the model.
        size_before, size_after: Bytes of the model's parameters and buffers.
        peak_memory: Most bytes that the process has held so far.
        seconds: Wall time of it all.
        warnings: What a reader should know before relying on the result.
    """

    recipe: dict[str, Any]
    calibration: dict[str, Any] | None = None
    layers: list[LayerReport] = field(default_factory=list)
    size_before: int = 0
    size_after: int = 0
    peak_memory: int = 0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON; keys are stable within a `version`."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    def _summary(self) -> str:
        saved = self.size_before / self.size_after if self.size_after else 1.0
        return (
            f"{self.recipe['scheme']}: {len(self.layers)} layers in {self.seconds:.1f} s, "
            f"{_mib(self.size_before)} -> {_mib(self.size_after)} ({saved:.2f} x smaller), "
            f"peak memory {_mib(self.peak_memory)}"
        )

    def __str__(self) -> str:
        rows = [COLUMNS, *(layer.cells() for layer in self.layers)]
        return "\n".join(
            [*aligned(rows, left=(0, 2)), self._summary(), *(f"warning: {w}" for w in self.warnings)]
        )

    def _repr_html_(self) -> str:
        rows = [COLUMNS, *(layer.cells() for layer in self.layers)]
        notes = "".join(f"<li>{html.escape(warning)}</li>" for warning in self.warnings)
        return (
            f"<p>{html.escape(self._summary())}</p>"
            + (f"<ul>{notes}</ul>" if notes else "")
            + html_table(rows)
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
