# SPDX-License-Identifier: Apache-2.0
"""``pennyweight benchmark``: how fast formats answer, and what their queries cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pennyweight.cli.output import quiet


def benchmark(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FORMAT=]TARGET...",
            help="Folders, URLs of OpenAI-compatible servers, or random:SHAPE (llama-3.2-1b, llama-3.1-8b, ...).",
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(metavar="sync|async", help="One query at a time, or many; repeatable.  [default: sync]"),
    ] = None,
    use_case: Annotated[
        list[str] | None, typer.Option(metavar="all|NAME", help="Repeatable.  [default: all]")
    ] = None,
    prefill: Annotated[
        str | None, typer.Option(metavar="TOKENS", help="A use case of your own: its prompt ...")
    ] = None,
    decode: Annotated[str | None, typer.Option(metavar="TOKENS", help="... and its answer.")] = None,
    scale: Annotated[str, typer.Option(metavar="SHARE", help="Multiplies all lengths; 0.1: a tenth.")] = "1",
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="bf16,SCHEME,...", help="Make these of a BF16 model in memory, for their speed."
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(help="Queries (sync) or measurements of the maximum (async) of each format.")
    ] = 3,
    requests: Annotated[int, typer.Option(help="async in this process: queries at each point.")] = 32,
    rates: Annotated[
        int, typer.Option(help="async: rates between one at a time and the maximum; 0: it alone.")
    ] = 3,
    seconds: Annotated[str, typer.Option(help="async, servers: of each rate.")] = "30",
    seed: Annotated[int, typer.Option(help="Of prompts and random weights.")] = 0,
    fuse: Annotated[bool, typer.Option("--fuse/--no-fuse", help="Run quantized models fused.")] = True,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of a server's model.  [default: as the server names it]"),
    ] = None,
    price: Annotated[
        str | None, typer.Option(metavar="USD", help="An hour of one GPU, or of the machine.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of prices.  [default: the study's, for --gpu]")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What it runs on, as prices call it: a6000, a100, h100."),
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="How many.  [default: 1]")] = None,
    guidellm: Annotated[
        list[str] | None,
        typer.Option(metavar="FORMAT=REPORT.json", help="Read a report of GuideLLM, repeatable."),
    ] = None,
    guidellm_python: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Python that has GuideLLM, for servers; or PENNYWEIGHT_GUIDELLM."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the result here; what is cut short too."),
    ] = None,
) -> None:
    """Measure how fast formats of one model answer, side by side, and what their queries cost.

    \b
    Examples:
    pennyweight benchmark Llama-3.2-1B out-int4 --mode sync --use-case rag --scale 0.1 --json speed.json
    pennyweight benchmark random:llama-3.2-1b --formats bf16,W8A8-INT,W4A16-INT --mode async --use-case rag --price 0.4
    pennyweight benchmark http://127.0.0.1:8000/v1 --mode async --guidellm-python .guidellm/bin/python
    """
    from pennyweight.benchmark import run

    quiet()
    found = run(
        targets or [],
        modes=mode or "sync",
        use_cases=_use_cases(use_case, prefill, decode),
        scale=_number("scale", scale),
        formats=formats.split(",") if formats else (),
        repeats=repeats,
        requests=requests,
        rates=rates,
        seconds=_number("seconds", seconds),
        seed=seed,
        fuse=fuse,
        tokenizer=tokenizer,
        price=None if price is None else _number("price", price),
        prices=prices,
        gpu=gpu,
        gpus=gpus,
        guidellm=guidellm or (),
        guidellm_python=guidellm_python,
        out=json_file,
        progress=sys.stderr.isatty(),
    )
    print(found)
    if json_file is not None:
        print(f"saved to {json_file}")


def _use_cases(named: list[str] | None, prefill: str | None, decode: str | None) -> list[Any]:
    from pennyweight.errors import MeasurementError
    from pennyweight.use_cases import UseCase

    if prefill is None and decode is None:
        return list(named or ["all"])
    if prefill is None or decode is None:
        raise MeasurementError(
            "--prefill and --decode belong together: tokens of the prompt and of the answer"
        )
    lengths = [int(n) if n.lstrip("-").isdecimal() else n for n in (prefill, decode)]
    return [*(named or []), UseCase(f"{prefill}-{decode}", *lengths)]  # type: ignore[arg-type]


def _number(option: str, text: str) -> float:
    from pennyweight.errors import MeasurementError

    try:
        return float(text)
    except ValueError:
        raise MeasurementError(f"--{option} must be a number; got {text!r}") from None
