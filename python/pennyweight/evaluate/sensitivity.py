# SPDX-License-Identifier: Apache-2.0
"""`pw.sensitivity`: which part of a model hurts when it is quantized.

The model is quantized once, as a copy; then, in the model itself, parts are exchanged for the copy's and put back,
and its answers are held against those it gave before:

    alone     only this part is quantized: what it costs
    without   everything but this part is quantized: what would be left if it were spared

A part is a layer, a kind of layer in all blocks (q/k/v, o, gate/up, down) or a block.
"""

from __future__ import annotations

import copy
import dataclasses
import html
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pennyweight.calibration.rows import as_calibration
from pennyweight.errors import EvaluationError, UnsupportedError
from pennyweight.evaluate import quick
from pennyweight.evaluate.in_process import InProcess
from pennyweight.grid import aligned
from pennyweight.layers import QuantizedLinear
from pennyweight.quantize import quantize
from pennyweight.recipes import Recipe, as_recipe
from pennyweight.swap import decoder_blocks, replace_module

if TYPE_CHECKING:
    from torch import Tensor

    from pennyweight.calibration import Calibration

#: Version of the keys of `Sensitivity.to_dict`.
VERSION = 1
PARTS = ("layer", "kind", "block")
KINDS = {
    "q_proj": "q/k/v", "k_proj": "q/k/v", "v_proj": "q/k/v", "o_proj": "o",
    "gate_proj": "gate/up", "up_proj": "gate/up", "down_proj": "down",
}  # fmt: skip
COLUMNS = ("part", "layers", "KL alone", "perplexity alone", "KL without", "perplexity without")
BAR = 24  # characters of the longest bar


@dataclass(frozen=True)
class PartSensitivity:
    """One part.

    Attributes:
        name: A layer's or block's name in the model, or a kind.
        layers: How many linear layers it has.
        kl, perplexity: With it alone quantized; KL(original ‖ model) in nats per token.
        kl_without, perplexity_without: With everything but it quantized.
    """

    name: str
    layers: int
    kl: float
    perplexity: float
    kl_without: float
    perplexity_without: float

    def cells(self) -> tuple[str, ...]:
        """Return the part's row of the table."""
        return (
            self.name, str(self.layers), f"{self.kl:.6f}", f"{self.perplexity:.4f}", f"{self.kl_without:.6f}",
            f"{self.perplexity_without:.4f}",
        )  # fmt: skip


@dataclass(frozen=True)
class Sensitivity:
    """A model's sensitivity, part by part; shows itself as a table with bars.

    Attributes:
        recipe: The recipe's fields.
        by: "layer", "kind" or "block".
        tokens: Predicted tokens that it was measured on.
        perplexity: Of the model as it is.
        kl_all, perplexity_all: With everything quantized.
        parts: In the order of the model.
    """

    recipe: dict[str, Any]
    by: str
    tokens: int
    perplexity: float
    kl_all: float
    perplexity_all: float
    parts: list[PartSensitivity]

    def worst(self) -> list[PartSensitivity]:
        """Return the parts, the one that costs most alone first."""
        return sorted(self.parts, key=lambda part: -part.kl)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    def plot(self, axes: Any = None) -> Any:
        """Draw KL alone as bars (matplotlib, extra "report") and return the axes.

        Args:
            axes: Of matplotlib; None: a new figure.
        """
        if importlib.util.find_spec("matplotlib") is None:
            raise EvaluationError(
                'plotting needs matplotlib, which is not installed; run: pip install "pennyweight[report]"'
            )
        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(figsize=(7, 1 + 0.25 * len(self.parts)), layout="constrained").subplots()
        names = [part.name for part in self.parts]
        axes.barh(names, [part.kl for part in self.parts])
        axes.invert_yaxis()
        axes.set_xlabel(
            f"KL to the original with this {self.by} alone in {self.recipe['scheme']}, nats per token"
        )
        return axes

    def __str__(self) -> str:
        bars = [(*part.cells(), "#" * round(BAR * self._share(part))) for part in self.parts]
        lines = aligned([(*COLUMNS, ""), *bars], left=(0, len(COLUMNS)))
        return "\n".join([*lines, self._summary()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in (*COLUMNS, ""))
        bar = '<td><div style="background:#4878a8;height:0.8em;width:{:.1f}em"></div></td>'
        body = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in part.cells())
            + bar.format(12 * self._share(part))
            + "</tr>"
            for part in self.parts
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"{table}<p>{html.escape(self._summary())}</p>"

    def _share(self, part: PartSensitivity) -> float:
        top = max(one.kl for one in self.parts)
        return max(part.kl, 0.0) / top if top > 0 else 0.0

    def _summary(self) -> str:
        return (
            f"{self.recipe['scheme']}, {self.tokens} tokens: perplexity {self.perplexity:.4f} as it is; all quantized "
            f"{self.perplexity_all:.4f}, KL {self.kl_all:.6f}"
        )


def sensitivity(
    model: nn.Module,
    calibration: Calibration | Tensor,
    recipe: Recipe | str = "W4A16-INT",
    *,
    by: str = "layer",
    data: Tensor | None = None,
    tokens: int = 8192,
    progress: bool = True,
) -> Sensitivity:
    """Measure what quantizing each part of a model costs; the model is afterwards as it was.

    Args:
        model: A causal language model that `pw.quantize` takes; a copy of it must fit in memory as well.
        calibration: From `pw.calibration`, or token ids (n, length), for the recipe.
        recipe: How parts are quantized; not with SmoothQuant, which changes what lies between them.
        by: "layer", "kind" (q/k/v, o, gate/up, down) or "block".
        data: Token ids (n, length) to measure on; None: the calibration's.
        tokens: Measure on the first rows that have about so many.
        progress: Show a bar.
    Raises:
        UnsupportedError, ShapeError, CalibrationError: As `pw.quantize`.
        EvaluationError: `by` is none of these; NaN or Inf in logits.
    """
    recipe = as_recipe(recipe)
    if by not in PARTS:
        raise EvaluationError(f"sensitivity: by must be one of {', '.join(PARTS)}; got {by!r}")
    if recipe.smoothquant is not None:
        raise UnsupportedError(
            "sensitivity: SmoothQuant changes the norms between the layers, so no layer can be exchanged alone; leave "
            "smoothquant out"
        )
    rows = as_calibration(calibration if data is None else data).ids
    rows = rows[: max(1, tokens // rows.shape[1])]
    if rows.shape[1] < 2:
        raise EvaluationError(f"sensitivity: rows need at least 2 tokens; got {rows.shape[1]}")
    copied = copy.deepcopy(model)
    quantize(copied, recipe, calibration if recipe.needs_calibration else None, progress=progress)
    quantized = {
        name: module for name, module in copied.named_modules() if isinstance(module, QuantizedLinear)
    }
    del copied
    parts = _parts(model, quantized, by)
    everything = frozenset(quantized)
    settings = {everything, *parts.values(), *(everything - part for part in parts.values())}
    found = _measure(model, quantized, settings, rows, progress)
    return Sensitivity(
        recipe=recipe.to_dict(),
        by=by,
        tokens=rows[:, 1:].numel(),
        perplexity=found[frozenset()]["perplexity"],
        kl_all=found[everything]["kl"],
        perplexity_all=found[everything]["perplexity"],
        parts=[_part(name, part, everything, found) for name, part in parts.items()],
    )


Names = frozenset[str]


def _part(name: str, part: Names, everything: Names, found: dict[Names, dict[str, Any]]) -> PartSensitivity:
    alone, without = found[part], found[everything - part]
    return PartSensitivity(
        name, len(part), alone["kl"], alone["perplexity"], without["kl"], without["perplexity"]
    )


def _parts(model: nn.Module, names: Iterable[str], by: str) -> dict[str, Names]:
    """Return the layers of each part, in the order of the model."""
    prefix, _ = decoder_blocks(model)
    found: dict[str, set[str]] = {}
    for name in names:
        block, last = name.removeprefix(f"{prefix}.").partition(".")[0], name.rpartition(".")[2]
        part = {"layer": name, "kind": KINDS.get(last, last), "block": f"{prefix}.{block}"}[by]
        found.setdefault(part, set()).add(name)
    return {part: frozenset(layers) for part, layers in found.items()}


def _measure(
    model: nn.Module,
    quantized: dict[str, QuantizedLinear],
    settings: Iterable[Names],
    rows: Tensor,
    progress: bool,
) -> dict[Names, dict[str, Any]]:
    """Return quick's metrics with each of these sets of layers quantized, and with none.

    Batch by batch, so that the original's logits are there once and never all at a time.
    """
    from tqdm.auto import tqdm

    target = InProcess(model, None, type(model).__name__)
    wanted = [frozenset[str](), *(s for s in settings if s)]
    items: dict[Names, list[dict[str, Any]]] = {setting: [] for setting in wanted}
    batches = list(target.batches([rows.shape[1]] * len(rows)))
    with (
        tqdm(total=len(batches) * len(items), desc="sensitivity", disable=not progress) as bar,
        torch.inference_mode(),
    ):
        for batch in batches:
            ids, targets = rows[batch][:, :-1], rows[batch][:, 1:]
            original = target.logits(ids)
            for setting, measured in items.items():
                with _exchanged(model, {name: quantized[name] for name in setting}):
                    measured += quick.measure_logits(
                        target.logits(ids) if setting else original, original, targets
                    )
                bar.update()
    return {setting: quick.summarize(measured) for setting, measured in items.items()}


@contextmanager
def _exchanged(model: nn.Module, layers: dict[str, QuantizedLinear]) -> Iterator[None]:
    """Put layers into a model for a while."""
    originals = {name: model.get_submodule(name) for name in layers}
    try:
        for name, layer in layers.items():
            replace_module(model, name, layer)
        yield
    finally:
        for name, original in originals.items():
            replace_module(model, name, original)
