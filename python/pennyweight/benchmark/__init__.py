# SPDX-License-Identifier: Apache-2.0
"""What a format's speed is worth: `pw.benchmark(targets)` measures latency, throughput and queries per dollar.

pw.benchmark(["Llama-3.2-1B", "out-int4"], modes="sync", use_cases="rag", scale=0.1, price=0.5, out="speed.json")
pw.benchmark("random:llama-3.2-1b", formats=["bf16", "W4A16-INT"])     # no checkpoint: random weights of that shape
pw.benchmark.read("speed.json")                                        # a result, checked; results.py has the layout
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pennyweight import money
from pennyweight.benchmark import guidellm as _guidellm
from pennyweight.benchmark.benchmark import Benchmark
from pennyweight.benchmark.results import MODES, read
from pennyweight.benchmark.rows import Place
from pennyweight.benchmark.runner import Plan, Runner, machine_of
from pennyweight.benchmark.sides import Side, open_sides
from pennyweight.errors import MeasurementError
from pennyweight.evaluate.in_process import InProcess
from pennyweight.evaluate.server import Server
from pennyweight.use_cases import ALL, UseCase, use_case

__all__ = ["Benchmark", "read", "run"]


def run(
    targets: Any | Sequence[Any] = (),
    *,
    modes: str | Sequence[str] = "sync",
    use_cases: str | UseCase | Sequence[str | UseCase] = "all",
    scale: float = 1.0,
    formats: Sequence[str] = (),
    repeats: int = 3,
    requests: int = 32,
    rates: int = 3,
    seconds: float = 30.0,
    seed: int = 0,
    fuse: bool = True,
    tokenizer: Any = None,
    price: float | None = None,
    prices: str | Path | None = None,
    gpu: str | None = None,
    gpus: int | None = None,
    guidellm: str | Path | Sequence[str | Path] = (),
    guidellm_python: str | Path | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Benchmark:
    """Measure how fast formats of one model answer, side by side; `pw.benchmark(...)` is this function.

    Args:
        targets: One or several: a folder (quantized ones run on our kernels), a model of transformers, the URL of an
            OpenAI-compatible server ("http://host:port/v1"), or "random:SHAPE" (llama-3.2-1b, llama-3.2-3b,
            llama-3.1-8b, or a config.json) for random weights. "W4A16-INT=..." names a format that cannot be seen.
            All of this process are in memory at once.
        modes: "sync" (one query at a time), "async" (many at once), or both.
        use_cases: Names, `UseCase`, or "all".
        scale: Multiplies their lengths, for small machines; at most 1.
        formats: Of each target in BF16: "bf16" and schemes, rounded in memory for their speed alone.
        repeats: Queries of each format (sync), measurements of the maximum throughput (async).
        requests: Queries at each point of a sweep in this process.
        rates: Constant rates between one query at a time and the maximum; 0: the maximum alone.
        seconds: Of each rate of a server's sweep.
        seed: Of prompts and random weights.
        fuse: Run quantized folders and formats made here fused (`pw.load(..., fuse=True)`); a model object runs as
            it is.
        tokenizer: Of servers and models that carry none, or its folder.
        price: USD an hour of one GPU, or of the machine.
        prices: File of prices (`money.read_prices`); by default the study's, where `gpu` is one of theirs.
        gpu: What it runs on, as prices call it; by default this machine's card, or "cpu".
        gpus: How many; by default 1.
        guidellm: Reports of GuideLLM to read, "FORMAT=report.json".
        guidellm_python: Python that has GuideLLM, for the async mode of servers; also from PENNYWEIGHT_GUIDELLM.
        out: File of the result; kept, marked as partial, when the run is stopped.
        progress: Show a bar.
    Returns:
        Tables that show themselves; `.rows`, `.to_dict()`.
    Raises:
        MeasurementError: Unknown use cases, lengths or prices that are none, formats of several models or machines, a
            GuideLLM that fails.
        EvaluationError, CheckpointError: A server or folder that is none, or fails.
    """
    sources = list(targets) if isinstance(targets, (list, tuple)) else [targets]
    given = [guidellm] if isinstance(guidellm, (str, Path)) else list(guidellm)
    if not sources and not given:
        raise MeasurementError("benchmark: nothing to measure; give a folder, a URL or random:llama-3.2-1b")
    plan = _plan(
        modes,
        use_cases,
        scale,
        repeats=repeats,
        requests=requests,
        rates=rates,
        seconds=seconds,
        seed=seed,
        fuse=fuse,
    )
    table = _prices(price, prices, gpu)
    reports = [_report(one) for one in given]
    if "async" in plan.modes and any(_is_url(source) for source in sources):
        plan = Plan(**vars(plan) | {"guidellm": _guidellm.find_python(guidellm_python)})
    sides = open_sides(sources, formats, tokenizer=tokenizer, fuse=fuse, seed=seed)
    _check_formats(sides, [form for form, _ in reports])
    _check_room(sides, plan.cases)
    about = machine_of(sides, reports)
    place, costs = _place(about, table, gpu, gpus)
    head = {"machine": {**about, "gpu": place.gpu, "gpus": place.gpus}, "prices": costs}
    return Benchmark(
        Runner(sides, reports, plan, place, head, None if out is None else Path(out), progress).run()
    )


def _plan(modes: Any, use_cases: Any, scale: float, **counts: Any) -> Plan:
    wanted = [modes] if isinstance(modes, str) else list(modes)
    for mode in wanted:
        if mode not in MODES:
            raise MeasurementError(
                f"mode '{mode}' is not known; it is sync (one query at a time) or async (many)"
            )
    named = [use_cases] if isinstance(use_cases, (str, UseCase)) else list(use_cases)
    cases: list[UseCase] = []
    for name in named:
        cases += ALL if name == "all" else [name if isinstance(name, UseCase) else use_case(name)]
    for key, least in (("repeats", 1), ("requests", 1), ("rates", 0)):
        value = counts[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise MeasurementError(f"{key} must be a whole number, {least} or more; got {value!r}")
    money.positive(counts["seconds"], "seconds", "s")
    scaled = tuple(case.scaled(scale) for case in dict.fromkeys(cases))
    if not wanted or not scaled:
        raise MeasurementError("benchmark: name at least one mode and one use case")
    return Plan(tuple(dict.fromkeys(wanted)), scaled, scale, **counts)


def _prices(price: float | None, prices: str | Path | None, gpu: str | None) -> money.Prices | None:
    if price is not None and prices is not None:
        raise MeasurementError("benchmark: give --price or --prices, not both")
    if price is not None:
        return money.flat_price(price)
    if prices is not None:
        return money.read_prices(prices)
    return money.study_prices() if gpu is not None else None


def _place(
    about: dict[str, Any], table: money.Prices | None, gpu: str | None, gpus: int | None
) -> tuple[Place, dict[str, Any] | None]:
    """Return where it ran, and the prices of it as the result's file has them."""
    cards = about.get("cards") or []
    name = gpu.lower() if gpu else None
    if name is None and about.get("cpu"):
        name = _card(cards[0], table) if cards else "cpu"
    count = 1 if gpus is None else gpus
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise MeasurementError(f"gpus must be a whole number, 1 or more; got {count!r}")
    if table is None:
        return Place(name, count, None), None
    if name is None and table.flat is None:
        raise MeasurementError(
            "benchmark: a server does not say what it runs on; give --gpu NAME, or --price"
        )
    per_hour = table.per_hour(name or "", count)
    return Place(name, count, per_hour), {
        "source": table.source,
        "date": table.date,
        "usd_per_hour": per_hour,
    }


def _card(card: str, table: money.Prices | None) -> str:
    """Return the name that prices have for a card ("NVIDIA H100 80GB HBM3": "h100"), or the card's own."""
    known = table.machines if table is not None else money.study_prices().machines
    return next((name for name in known if name in card.lower()), card.lower())


def _report(given: str | Path) -> tuple[str, _guidellm.Report]:
    label, _, path = str(given).partition("=")
    if not path or Path(str(given)).exists():
        raise MeasurementError(
            f"{given}: a report does not say which format it is of; name it: W4A16-INT={given}"
        )
    return label, _guidellm.read(path)


def _check_formats(sides: Sequence[Side], reported: Sequence[str]) -> None:
    seen = [side.format for side in sides] + list(dict.fromkeys(reported))
    double = next((form for form in seen if seen.count(form) > 1), None)
    if double:
        raise MeasurementError(
            f"benchmark: both a target and a GuideLLM report are {double}; name one otherwise"
        )


def _check_room(sides: Sequence[Side], cases: Sequence[UseCase]) -> None:
    """Refuse queries that are longer than the model can read, before anything is measured."""
    for side in sides:
        if not isinstance(side.target, InProcess):
            continue
        room = getattr(side.model.config.get_text_config(), "max_position_embeddings", None)
        if room is None:
            continue
        if long := [case for case in cases if case.tokens > room]:
            most = max(case.tokens for case in long)
            fits = room / most * long[0].scale
            raise MeasurementError(
                f"{side.about['name']}: reads at most {room} tokens, {', '.join(case.name for case in long)} would "
                f"need up to {most}; leave them out, or take --scale {int(1000 * fits) / 1000:g}"
            )


def _is_url(source: Any) -> bool:
    return isinstance(source, Server) or (isinstance(source, str) and "://" in source)


class _Callable(ModuleType):
    """Makes `pw.benchmark` a function that has functions."""

    def __call__(self, *args: Any, **kwargs: Any) -> Benchmark:
        return run(*args, **kwargs)


_Callable.__call__.__doc__ = run.__doc__
sys.modules[__name__].__class__ = _Callable
