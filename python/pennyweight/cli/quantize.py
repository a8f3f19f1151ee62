# SPDX-License-Identifier: Apache-2.0
"""``pennyweight quantize``: checkpoint to checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.output import quiet, write_json
from pennyweight.errors import CalibrationError, CheckpointError

if TYPE_CHECKING:
    from pennyweight.calibration import Calibration
    from pennyweight.checkpoint.folder import Folder

VERSION = 1  # of the keys of --json: version, source, out, report (as Report.to_dict)


def quantize(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder of the model: config.json, safetensors.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; it must not exist.")],
    scheme: Annotated[str, typer.Option(help="W8A8-FP, W8A8-INT or W4A16-INT.")],
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="random|FILE|DIR",
            help=".jsonl (text or messages), .txt, or token ids (n, length) in .npy or .safetensors.",
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Rows of calibration data.  [default: 512]")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens per row.  [default: 2048]")] = None,
    seed: Annotated[int, typer.Option(help="Of the shuffle of texts, and of random tokens.")] = 0,
    smoothquant: Annotated[
        float | None, typer.Option(metavar="[STRENGTH]", help="SmoothQuant; 0.8 without a value.")
    ] = None,
    algorithm: Annotated[str | None, typer.Option(metavar="gptq|rtn", help="How codes are found.")] = None,
    observer: Annotated[str | None, typer.Option(metavar="mse|minmax", help="How scales are found.")] = None,
    damping: Annotated[
        float | None, typer.Option(help="GPTQ's share of the mean diagonal.  [default: 0.01]")
    ] = None,
    act_order: Annotated[
        str | None, typer.Option(metavar="static|none", help="GPTQ's order of columns.")
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(help="W4A16-INT: 32, 64, 128 or -1 (the whole row).")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="RE", help="Leave modules out: a name or re:..., repeatable.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1.  [default: cpu]")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Bytes per weight file.")] = "5GB",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report here as JSON.")
    ] = None,
) -> None:
    """Quantize the model in SRC and write a compressed-tensors checkpoint to OUT.

    \b
    Examples:
    pennyweight quantize Llama-3.1-8B Llama-3.1-8B-FP8 --scheme W8A8-FP
    pennyweight quantize Llama-3.1-8B Llama-3.1-8B-w4 --scheme W4A16-INT --calibration texts.jsonl
    """
    from pennyweight.checkpoint.folder import read_folder
    from pennyweight.checkpoint.loader import check_dense, load_dense
    from pennyweight.checkpoint.place import check_absent
    from pennyweight.checkpoint.writer import save, shard_limit
    from pennyweight.devices import as_device
    from pennyweight.quantize import quantize as quantize_model
    from pennyweight.recipes import Recipe

    quiet()
    check_absent(out)
    as_device(device, "--device")
    limit = shard_limit(max_shard_size)
    recipe = Recipe(
        scheme,
        algorithm=algorithm,
        observer=observer,
        smoothquant=smoothquant,
        damping=damping,
        act_order=act_order,
        group_size=group_size,
        ignore=tuple(ignore or ("lm_head",)),
    )
    if calibration is None and recipe.needs_calibration:
        raise CalibrationError(
            f"--calibration is missing: {recipe.scheme} by {recipe.algorithm} is found on data; give --calibration "
            "FILE (or random), or --algorithm rtn without --smoothquant"
        )
    folder = read_folder(source)
    check_dense(folder)
    data = _calibration(calibration, folder, samples, length, seed)
    model = load_dense(folder)
    report = quantize_model(model, recipe, data, device=device, progress=sys.stderr.isatty())
    save(model, out, source=source, recipe=recipe, max_shard_size=limit)
    if json_file is not None:
        write_json(
            json_file,
            {"version": VERSION, "source": str(source), "out": str(out), "report": report.to_dict()},
        )
    print(report)
    print(f"saved to {out}")


def _calibration(
    data: str | None, folder: Folder, samples: int | None, length: int | None, seed: int
) -> Calibration | None:
    from pennyweight import calibration
    from pennyweight.checkpoint.tokenizer import load_tokenizer

    if data is None:
        return None
    if data == "random":
        vocabulary = folder.config.get("vocab_size")
        if vocabulary is None:
            raise CheckpointError(
                f"{folder.path / 'config.json'}: has no vocab_size; give --calibration a file"
            )
        rows = calibration.DEFAULT_SAMPLES if samples is None else samples
        tokens = calibration.DEFAULT_LENGTH if length is None else length
        return calibration.random(vocabulary, rows, tokens, seed)
    return calibration.from_file(data, load_tokenizer(folder.path), samples, length, seed)
