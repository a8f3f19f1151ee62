# SPDX-License-Identifier: Apache-2.0
"""``pennyweight evaluate``: what models lost against the one they were made from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.output import quiet, write_json


def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Folders, or URLs of OpenAI-compatible servers.")
    ],
    suite: Annotated[list[str], typer.Option(metavar="NAME", help="What to measure, repeatable; see below.")],
    baseline: Annotated[
        str | None, typer.Option(metavar="SRC", help="What they were made from: a folder or a URL.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A JSON per model; a stopped run goes on from there.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="quick: text, .jsonl, or token ids in .npy, .safetensors."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="similarity: `prompt` or `messages` in each line."),
    ] = None,
    datasets: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the suites' datasets.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Items per task (quick: windows).  [default: all]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of whatever is drawn.")] = 0,
    length: Annotated[int, typer.Option(help="quick: tokens of a window.")] = 512,
    batch_size: Annotated[int | None, typer.Option(help="Items at once.  [default: the suite's]")] = None,
    samples: Annotated[int | None, typer.Option(help="Answers per question.  [default: the suite's]")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Tokens of an answer.  [default: the suite's]")
    ] = None,
    context_length: Annotated[
        list[int] | None, typer.Option(metavar="TOKENS", help="ruler: repeatable.  [default: 4k to 128k]")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only these of a suite's tasks, repeatable.")
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="code: run the programs that models write, in a sandbox.")
    ] = False,
    allow_weak_jail: Annotated[
        bool,
        typer.Option(
            "--allow-weak-jail", help="code: with limits alone, where this machine allows no namespaces."
        ),
    ] = False,
    judge: Annotated[
        str | None, typer.Option(metavar="URL", help="arena-hard: the server that judges.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(metavar="NAME", help="Its model.")] = None,
    bertscore_model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="similarity: encoder of BERTScore.")
    ] = None,
    sts_model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="similarity: sentence encoder.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of a server's model.  [default: as the server names it]"),
    ] = None,
    compare_with_study: Annotated[
        bool, typer.Option("--compare-with-study", help="Also put each model beside the study's row.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all results here as JSON.")
    ] = None,
) -> None:
    """Measure models and the baseline they were made from, by the same code, and say whether they differ.

    \b
    Examples:
    pennyweight evaluate out-fp8 out-int4 --baseline Llama-3.1-8B --suite quick --data texts.txt --out runs
    """
    from pennyweight.evaluate import run

    quiet()
    try:
        found = run(
            models,
            baseline=baseline,
            suites=suite,
            out=out,
            tokenizer=tokenizer,
            progress=sys.stderr.isatty(),
            data=data,
            prompts=prompts,
            datasets=datasets,
            limit=limit,
            seed=seed,
            length=length,
            batch_size=batch_size,
            samples=samples,
            max_new_tokens=max_new_tokens,
            context_lengths=tuple(context_length or ()),
            tasks=tuple(task or ()),
            allow_code=allow_code,
            allow_weak_jail=allow_weak_jail,
            judge_url=judge,
            judge_model=judge_model,
            bertscore_model=bertscore_model,
            sts_model=sts_model,
        )
    except BaseException as error:
        if out is not None and hasattr(error, "kept"):
            error.kept = f"what was done is in {out}, and the same command goes on from there"
        raise
    print(found)
    if compare_with_study:
        from pennyweight.study import beside

        for result in found.models:
            for comparison in beside(result, found.baseline):
                print(f"\n{result['model']['name']}: {comparison}")
    if json_file is not None:
        write_json(json_file, found.to_dict())
    if out is not None:
        print(f"saved to {out}")
