# SPDX-License-Identifier: Apache-2.0
"""What quantize and sensitivity say of single layers: heat maps of their error, bars of what each part costs."""

from __future__ import annotations

import re

from pennyweight.report import plots
from pennyweight.report.markup import escape, figure, gallery, missing
from pennyweight.report.runs import Json, Quantization, Runs

#: Smallest share that the heat maps' scale goes down to.
SMALLEST = 1e-5
#: Parts of a sensitivity that are drawn, the worst.
WORST = 30


def errors(runs: Runs) -> str:
    """Return a heat map per quantized model, all on one scale."""
    if not runs.quantizations:
        return missing(
            "No report of quantize is among the runs",
            "pennyweight quantize SRC OUT --scheme S --json quantize.json",
        )
    errors = [_error(layer)[0] for run in runs.quantizations for layer in run.report["layers"]]
    positive = [e for e in errors if e > 0] or [1.0]
    low, high = max(min(positive), SMALLEST), max(positive)
    limits = (low, high if high > low else 2 * low)
    figures = [figure(run.label, _summary(run), _heat_map(run, limits)) for run in runs.quantizations]
    warned = [
        f"<li>{escape(run.label)}: {escape(w)}</li>"
        for run in runs.quantizations
        for w in run.report["warnings"]
    ]
    return (
        '<p class="dim">Relative error of each layer\'s output on the calibration data; of its weight where there was '
        "no data. One scale for all maps.</p>"
        + gallery(figures)
        + (f"<ul>{''.join(warned)}</ul>" if warned else "")
    )


def _summary(run: Quantization) -> str:
    report = run.report
    kinds = {_error(layer)[1] for layer in report["layers"]}
    of = (
        "outputs"
        if kinds == {"output"}
        else "weights"
        if kinds == {"weight"}
        else "outputs, or weights without data"
    )
    saved = report["size_before"] / report["size_after"] if report["size_after"] else 1.0
    scheme = report["recipe"].get("scheme", "")
    return escape(
        f"{scheme}, {len(report['layers'])} layers, {saved:.2f} x smaller, {report['seconds']:.0f} s; error of {of}"
    )


def _error(layer: Json) -> tuple[float, str]:
    if layer["output_error"] is not None:
        return float(layer["output_error"]), "output"
    return float(layer["weight_error"]), "weight"


def _heat_map(run: Quantization, limits: tuple[float, float]) -> str:
    grid: dict[str, dict[str, float]] = {}
    for layer in run.report["layers"]:
        found = re.search(r"\.(\d+)\.(.+)$", layer["name"])
        block, kind = (found[1], found[2].rpartition(".")[2]) if found else ("other", layer["name"])
        grid.setdefault(block, {})[kind.removesuffix("_proj")] = _error(layer)[0]
    kinds = list(dict.fromkeys(kind for row in grid.values() for kind in row))
    cells = [[row.get(kind) for kind in kinds] for row in grid.values()]
    return plots.heat_map(list(grid), kinds, cells, limits, "error, %; rows: blocks")


def sensitivity(runs: Runs) -> str:
    """Return bars of what each part costs when it alone is quantized."""
    if not runs.sensitivities:
        return missing(
            "No sensitivity is among the runs", "pw.sensitivity(model, calibration).to_dict(), as JSON"
        )
    figures = []
    for one in runs.sensitivities:
        parts = sorted(one["parts"], key=lambda part: -part["kl"])[:WORST]
        names = [re.sub(r"^model\.(layers\.)?", "", part["name"]) for part in parts]
        plot = plots.bars(names, [part["kl"] for part in parts], "KL with it alone quantized, nats per token")
        more = f"the worst {len(parts)} of {len(one['parts'])}; " if len(parts) < len(one["parts"]) else ""
        about = (
            f"{more}{one['tokens']:,} tokens; all quantized: KL {one['kl_all']:.5f}, perplexity "
            f"{one['perplexity']:.4f} to {one['perplexity_all']:.4f}"
        )
        figures.append(figure(f"{one['recipe'].get('scheme', '')} by {one['by']}", about, plot))
    return gallery(figures)
