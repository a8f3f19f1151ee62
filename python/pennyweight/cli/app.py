# SPDX-License-Identifier: Apache-2.0
"""The list of commands, and how a command line becomes an exit code."""

from __future__ import annotations

import sys
from typing import Any

import typer

from pennyweight.cli.benchmark import benchmark
from pennyweight.cli.evaluate import evaluate
from pennyweight.cli.quantize import quantize
from pennyweight.cli.recommend import recommend
from pennyweight.cli.report import report
from pennyweight.errors import PennyweightError

# Some versions of typer use the click that is installed, some carry their own: only the base of a public class names
# the right one.
UsageError: Any = typer.BadParameter.__bases__[0]
app = typer.Typer(
    name="pennyweight",
    help="Quantize Llama-family models for vLLM and transformers, measure what they lost, and choose a format.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(quantize)
app.command()(evaluate)
app.command()(recommend)
app.command()(benchmark)
app.command()(report)


def run(arguments: list[str]) -> int:
    """Run a command line; bad input is one line on stderr and exit code 2."""
    try:
        code = app(_with_strength(arguments), prog_name="pennyweight", standalone_mode=False)
    except UsageError as error:
        return _fail(f"{error.format_message()} See pennyweight --help")
    except PennyweightError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"out of memory: {error}; close other programs, or take a machine with more")
    return code if isinstance(code, int) else 0


def _fail(text: str) -> int:
    print("pennyweight: " + " ".join(text.split()), file=sys.stderr)
    return 2


def _with_strength(arguments: list[str]) -> list[str]:
    """``--smoothquant`` may stand without its value; then it is 0.8, the study's."""
    result: list[str] = []
    for position, argument in enumerate(arguments):
        result.append(argument)
        if argument == "--smoothquant" and not _is_number(arguments[position + 1 : position + 2]):
            result.append("0.8")
    return result


def _is_number(following: list[str]) -> bool:
    try:
        float(following[0])
    except (IndexError, ValueError):
        return False
    return True
