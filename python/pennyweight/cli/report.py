# SPDX-License-Identifier: Apache-2.0
"""``pennyweight report``: runs as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="JSON of evaluate, quantize, benchmark or pw.sensitivity, or folders of it.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="Of the page.")] = "What quantization cost",
) -> None:
    """Show runs as one self-contained page: what was gained in size, what was lost, where.

    \b
    Example:
    pennyweight report runs quantize.json -o report.html
    """
    from pennyweight.report.page import report as make

    print(f"saved to {make(runs, title=title).save(out)}")
