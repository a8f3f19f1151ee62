# SPDX-License-Identifier: Apache-2.0
"""HTML that the sections are made of: tables, figures, what is missing, numbers. Arguments are texts unless said."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """Return a table that scrolls on a narrow screen; cells are HTML."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    name = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll"><table{name}><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def figure(title: str, about: str, plot: str) -> str:
    """Return a plot (SVG) under its title and a smaller line of HTML."""
    return f"<figure><figcaption>{escape(title)}<small>{about}</small></figcaption>{plot}</figure>"


def gallery(figures: Sequence[str]) -> str:
    """Return figures beside each other, as many as the screen has room for."""
    return f'<div class="plots">{"".join(figures)}</div>' if figures else ""


def missing(what: str, how: str | None = None) -> str:
    """Return a box that says what is missing, and the command that makes it."""
    return (
        f'<p class="missing">Missing: {escape(what)}.'
        + (f" It is made by: <code>{escape(how)}</code>" if how else "")
        + "</p>"
    )


def code(value: Any) -> str:
    """Return a path or hash; a dash for none."""
    return f"<code>{escape(str(value))}</code>" if value else "-"


def escape(text: str) -> str:
    """Return a text as HTML."""
    return html.escape(text)


def ends(low: float | None, high: float | None, form: str) -> str:
    """Return an interval in small print; nothing where there is none."""
    return "" if low is None or high is None else f" <small>[{form.format(low)}, {form.format(high)}]</small>"


def number(value: Any, form: str) -> str:
    """Return a number in that form; a dash for none."""
    return "-" if value is None else form.format(value)


def share(value: float | None) -> str:
    """Return a share as percent; a dash for none."""
    return "-" if value is None else f"{100 * value:.2f} %"
