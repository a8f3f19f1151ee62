# SPDX-License-Identifier: Apache-2.0
"""`pennyweight report`: runs of evaluate, quantize, benchmark and sensitivity as one self-contained page.

The page needs no network and no script: style, plots and text are inside it. What the runs do not hold is said to be
missing, with the command that makes it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pennyweight.errors import EvaluationError
from pennyweight.files import write_text
from pennyweight.report import plots
from pennyweight.report.runs import collect
from pennyweight.report.sections import body

STYLE = Path(__file__).with_name("page.css")


@dataclass(frozen=True)
class Page:
    """A report; shows itself in a notebook.

    Attributes:
        title: Of the page.
        body: What is inside its one `div`, HTML.
    """

    title: str
    body: str

    @property
    def html(self) -> str:
        """The page, whole."""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{html.escape(self.title)}</title>"
            "<style>body { margin: 0; background: #ffffff; } "
            "@media (prefers-color-scheme: dark) { body { background: #15191c; } }</style>"
            f"</head><body>{self._repr_html_()}</body></html>\n"
        )

    def save(self, path: str | Path) -> Path:
        """Write the page, beside its place first.

        Raises:
            EvaluationError: It cannot be written.
        """
        path = Path(path)
        write_text(path, self.html, EvaluationError)
        return path

    def _repr_html_(self) -> str:
        return (
            f'<style>\n{STYLE.read_text(encoding="utf-8")}</style><div class="pennyweight">{self.body}</div>'
        )

    def __str__(self) -> str:
        return f"{self.title}: {len(self.html) / 1024:.0f} KiB of HTML; .save(path) writes it"


def report(runs: Any | Sequence[Any], *, title: str = "What quantization cost") -> Page:
    """Make a page of runs.

    Args:
        runs: One or several: JSON files of evaluate, quantize and benchmark, folders of such, or what `pw.evaluate`,
            `pw.quantize`, `pw.benchmark` and `pw.sensitivity` returned (or its ``to_dict()``, also as a file).
        title: Of the page.
    Raises:
        EvaluationError: A run that is missing, truncated, of another version or changed by hand; no matplotlib.
    """
    plots.check()
    found = collect(runs if isinstance(runs, (list, tuple)) else [runs])
    return Page(title, f"<h1>{html.escape(title)}</h1>{body(found)}")
