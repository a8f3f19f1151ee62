# SPDX-License-Identifier: Apache-2.0
"""The plots of the page, as SVG that takes its colours from the page: readable on dark and on light.

matplotlib draws in two stand-in colours, which become CSS variables. Plots are narrow, so that a phone shows them at
their own size.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

from pennyweight.errors import EvaluationError

INK, ACCENT = "#010203", "#030201"
WIDTH = 3.9  # inches; at 72 to the inch and 4/3 CSS pixels to the point, 374 pixels
ROW, MARGIN = 0.24, 0.75
#: Rows up to which a heat map's cells show their numbers.
LABELLED = 16
#: Of lines, in turn.
MARKERS, DASHES = "osD^vx", ("-", "--", "-.", ":")
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "pennyweight", "font.family": "sans-serif", "font.size": 9,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.facecolor": "none", "figure.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip
Cells = Sequence[Sequence[float | None]]
P = ParamSpec("P")


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw in the page's style, whatever the caller's matplotlib is set to."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def heat_map(
    rows: Sequence[str], columns: Sequence[str], cells: Cells, limits: tuple[float, float], unit: str
) -> str:
    """Draw shares as colours on a logarithmic scale.

    Args:
        rows, columns: Their names, from the top and from the left.
        cells: Shares, `rows` by `columns`; None: nothing there.
        limits: Ends of the scale, as of all maps that are to be compared.
        unit: What the scale shows.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    height = min(ROW * len(rows), 9.0)
    figure = _figure(height + 1.15)
    axes = figure.subplots()
    scale: Any = ScalarMappable(LogNorm(*limits), "viridis")
    shown = [[math.nan if value is None else max(value, limits[0]) for value in row] for row in cells]
    axes.pcolormesh(shown, norm=scale.norm, cmap=scale.cmap, edgecolors="none")
    axes.invert_yaxis()
    axes.set_xticks(
        [i + 0.5 for i in range(len(columns))], columns, rotation=45, ha="left", rotation_mode="anchor"
    )
    axes.xaxis.tick_top()
    every = max(1, len(rows) // 20)
    axes.set_yticks([i + 0.5 for i in range(0, len(rows), every)], rows[::every])
    axes.tick_params(length=0)
    if len(rows) <= LABELLED:
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                if value is not None:
                    dark = scale.norm(max(value, limits[0])) < 0.6
                    axes.text(x + 0.5, y + 0.5, _percent(value), ha="center", va="center", fontsize=7,
                              color="#ffffff" if dark else "#000000")  # fmt: skip
    bar = figure.colorbar(scale, ax=axes, orientation="horizontal", aspect=40, pad=0.03)
    bar.set_label(unit)
    bar.ax.xaxis.set_major_formatter(lambda value, _: _percent(value))
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    return _svg(figure)


@_styled
def bars(names: Sequence[str], values: Sequence[float], label: str) -> str:
    """Draw one bar for each name, from the top."""
    figure = _figure(ROW * len(names) + MARGIN)
    axes = figure.subplots()
    axes.barh(names, values, color=ACCENT, height=0.7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(_few())
    return _svg(figure)


@_styled
def intervals(
    names: Sequence[str], values: Sequence[tuple[float, float | None, float | None]], label: str, at: float
) -> str:
    """Draw a point with its interval for each name, and a line at `at`."""
    figure = _figure(ROW * len(names) + MARGIN)
    axes = figure.subplots()
    axes.axvline(at, color=INK, linewidth=0.8, linestyle=":")
    for y, (value, low, high) in enumerate(values):
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=ACCENT, linewidth=2, alpha=0.55)
        axes.plot([value], [y], "o", color=ACCENT, markersize=5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(_few())
    return _svg(figure)


@_styled
def curves(series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, plain: str | None) -> str:
    """Draw a line through each series' points, told apart by marker and dash.

    Args:
        series: Points by name, in the order in which they are joined.
        x, y: What the axes show.
        plain: The series that others are held against: in the text's colour.
    """
    figure = _figure(2.7)
    axes = figure.subplots()
    for i, (name, points) in enumerate(series.items()):
        color = INK if name == plain else ACCENT
        axes.plot(*zip(*points, strict=True), DASHES[i % len(DASHES)], marker=MARKERS[i % len(MARKERS)], color=color,
                  markersize=4.5, linewidth=1.3, label=name)  # fmt: skip
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(_few())
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    return _svg(figure)


def check() -> None:
    """Raise EvaluationError unless matplotlib is there."""
    if importlib.util.find_spec("matplotlib") is None:
        raise EvaluationError(
            'report needs matplotlib, which is not installed; run: pip install "pennyweight[report]"'
        )


def _figure(height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _svg(figure: Any) -> str:
    """Return a figure as an SVG element whose colours are the page's."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+)px[^;\"]*", r"font: \1px var(--font)", text)
    return text.replace(INK, "var(--ink)").replace(ACCENT, "var(--accent)")


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.1f}" if percent >= 0.95 else f"{percent:.1g}"
