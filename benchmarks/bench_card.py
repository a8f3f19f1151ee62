# SPDX-License-Identifier: Apache-2.0
"""Measure all that runs on a card: python benchmarks/bench_card.py --json FILE [--save].

Parts: activations (quantization and its fusions), linear (the layers and GEMMs beside torch's), calibrate (a Hessian,
GPTQ), model (prefill and decode of an 8B-shaped model). Each result is checked before it is timed. The file is written
after every part, so that a run that is cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path

import torch

import machine
import results
from card import activations, bars, calibrate, linear, model
from card.timing import Clock
from pennyweight import _C
from results import Row

PARTS = ("activations", "linear", "calibrate", "model")


def about() -> dict[str, object]:
    """What belongs beside every figure."""
    properties = torch.cuda.get_device_properties(0)
    return {"date": datetime.date.today().isoformat(), **machine.describe(), "machine": properties.name,
            "torch_cuda": torch.version.cuda, "cuda": _C.cuda(), "card": _C.card(0)}  # fmt: skip


def results_file() -> Path:
    """results/<card>.json."""
    name = torch.cuda.get_device_properties(0).name.lower()
    return machine.HERE / "results" / (re.sub(r"[^a-z0-9]+", "-", name).strip("-") + ".json")


def refuse_without_card() -> None:
    """Exit with 2 and the reason where nothing can be measured."""
    if not torch.cuda.is_available() or not _C.cuda()["built"]:
        print(f"needs a card and a build with CUDA; driver: {_C.cuda()['driver']}", file=sys.stderr)
        sys.exit(2)


def main() -> None:
    """Measure, print tables and verdicts, write the file after every part."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", default=",".join(PARTS), help="by commas (default: %(default)s)")
    p.add_argument(
        "--impl", default="best", choices=["best", "all"], help="of linear layers (default: %(default)s)"
    )
    p.add_argument("--rounds", type=int, default=50, help="timed calls of each (default: %(default)s)")
    p.add_argument("--json", type=Path, help="where the rows go")
    p.add_argument(
        "--save", action="store_true", help="also into results/<card>.json, in place of older ones"
    )
    args = p.parse_args()
    refuse_without_card()
    clock, facts = Clock(args.rounds), about()
    rows: list[Row] = []
    models: list[Row] = []
    for part in args.parts.split(","):
        if part == "activations":
            rows += activations.measure(clock)
        elif part == "linear":
            rows += linear.measure(clock, args.impl)
        elif part == "calibrate":
            rows += [calibrate.hessian(clock), calibrate.all_layers()]
        elif part == "model":
            models = model.measure()
        else:
            p.error(f"--parts: {part} is none of {', '.join(PARTS)}")
        torch.cuda.empty_cache()
        for path, keep in ((args.json, False), (results_file() if args.save else None, True)):
            if path:
                results.save(path, facts, {}, rows, keep=keep)
                if models:
                    results.save_models(path, facts, models, keep=True)
    print("\n".join(bars.verdicts([*rows, *models])))


if __name__ == "__main__":
    main()
