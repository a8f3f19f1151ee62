# SPDX-License-Identifier: Apache-2.0
"""``pennyweight recommend``: which format to deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.output import write_json


def recommend(
    measurements: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE...]", help="JSON of benchmark and evaluate, or folders of it."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="llama-3.1-70b and the like, or a folder.  [default: as measured]")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="a100, h100, l40s, ..., or cpu.  [default: as measured]")
    ] = None,
    mode: Annotated[str, typer.Option(help="sync: one query at a time; async: many at once.")] = "sync",
    use_case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=SHARE]", help="Repeatable; all: the study's seven, alike.  [default: all]"
        ),
    ] = None,
    prefill: Annotated[int | None, typer.Option(help="Tokens of a prompt, instead of a use case.")] = None,
    decode: Annotated[int | None, typer.Option(help="Tokens of an answer.")] = None,
    max_latency: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Of a query from end to end.")
    ] = None,
    min_recovery: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="Of the unquantized model's score.")
    ] = None,
    recovery_suite: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose recovery counts.  [default: the lowest]")
    ] = None,
    price: Annotated[
        float | None, typer.Option(metavar="USD", help="An hour of one GPU.  [default: the study's]")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prices by GPU and number of them, JSON.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the advice here as JSON.")
    ] = None,
) -> None:
    """Rank BF16 and the formats by what a query costs, from measurements, the study's tables or a roofline model.

    \b
    Examples:
    pennyweight recommend --model llama-3.1-70b --gpu a100 --mode async --use-case rag --max-latency 5 --min-recovery 99
    pennyweight recommend bench.json runs --mode sync --use-case rag=0.7 --use-case summarization=0.3 --price 0.10
    """
    from pennyweight.recommend.advice import recommend as advise

    advice = advise(
        model,
        gpu,
        mode=mode,
        use_case=use_case or ["all"],
        prefill=prefill,
        decode=decode,
        max_latency=max_latency,
        min_recovery=min_recovery,
        recovery_suite=recovery_suite,
        measurements=measurements or [],
        price=price,
        prices=prices,
    )
    print(advice)
    if json_file is not None:
        write_json(json_file, advice.to_dict())
        print(f"saved to {json_file}")
