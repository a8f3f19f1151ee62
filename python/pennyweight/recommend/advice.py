# SPDX-License-Identifier: Apache-2.0
"""Which format to deploy: formats at numbers of GPUs, ranked by what a query costs, with bounds and reasons.

Sources, in this order, and one for the whole ranking, since figures of two do not compare: the user's measurements, the
study's tables, the roofline model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pennyweight import money, use_cases
from pennyweight.errors import MeasurementError
from pennyweight.money import Prices
from pennyweight.recommend import gpus, measured, modelled, printed, ranking, recovery, shapes
from pennyweight.recommend.command import quantize_command
from pennyweight.recommend.crossing import crossings
from pennyweight.recommend.gpus import Gpu
from pennyweight.recommend.measured import Measurements
from pennyweight.recommend.offers import Offers
from pennyweight.recommend.result import CPU, Advice
from pennyweight.recommend.roofline import COUNTS, fitted
from pennyweight.recommend.shapes import Shape
from pennyweight.recommend.workload import Workload, workload

MODES = ("sync", "async")


@dataclass(frozen=True)
class _Asked:
    """What advice is asked for, resolved."""

    model: Shape | None
    model_name: str
    gpu: Gpu | None
    gpu_name: str
    mode: str
    work: Workload
    given: Measurements


def recommend(
    model: str | Path | None = None,
    gpu: str | None = None,
    *,
    mode: str = "sync",
    use_case: str | Sequence[str] = "all",
    prefill: int | None = None,
    decode: int | None = None,
    max_latency: float | None = None,
    min_recovery: float | None = None,
    recovery_suite: str | None = None,
    measurements: Sequence[str | Path] = (),
    price: float | None = None,
    prices: str | Path | None = None,
) -> Advice:
    """Say which format to deploy, on how many GPUs, at what cost, and why.

    Args:
        model: A name ("llama-3.1-70b") or a folder; None: the measurements' model.
        gpu: "a100" and the like, "cpu" for a machine without; None: the measurements' machine.
        mode: "sync": one query at a time, ranked by latency; "async": many at once, ranked by throughput.
        use_case: A name, "all" (the study's seven, each alike), or shares ("rag=0.7,summarization=0.3").
        prefill, decode: Tokens of prompt and answer, instead of a use case.
        max_latency: Bound, seconds from end to end of a query (many at once: the load is lowered to meet it).
        min_recovery: Bound, percent of the unquantized model's score.
        recovery_suite: Which suite's recovery counts; None: the lowest of those measured.
        measurements: Files, or folders of files, of `pennyweight benchmark` and `pennyweight evaluate`.
        price: USD an hour of one GPU (or of the machine, without); None: `prices`, else as benchmarked, else the
            study's.
        prices: A file of prices, see `pw.money.read_prices`.
    Returns:
        The advice, which shows itself; `.choices` is the ranking.
    Raises:
        MeasurementError: Something asked for is not known, measurements do not belong together or to it, or nothing
            meets the bounds; the text says by how much the nearest misses.
    """
    if mode not in MODES:
        raise MeasurementError(f"mode must be sync or async; got '{mode}'")
    bounds = ranking.Bounds(
        None if max_latency is None else money.positive(max_latency, "max latency", "s"),
        None if min_recovery is None else money.positive(min_recovery, "min recovery", "percent"),
    )
    names = [use_case] if isinstance(use_case, str) else list(use_case)
    work = workload(names, prefill=prefill, decode=decode)
    own = _own_prices(price, prices)
    asked = _asked(model, gpu, mode, work, measured.read(measurements))
    found = _offers(asked)
    paid = _prices(own, asked, found)
    notes = list(found.notes)
    if paid is None:
        notes.append(
            f"No price of {asked.gpu_name}: ranked by its time per query; give --price, USD an hour."
        )
    kept = recovery.recoveries(asked.model, asked.given.evaluations, recovery_suite)
    headline, choices = ranking.ranked(found, asked.gpu_name, mode, asked.work, bounds, paid, kept)
    best = choices[0]
    return Advice(
        model=asked.model_name,
        gpu=asked.gpu_name,
        mode=mode,
        workload=str(asked.work),
        bounds=bounds.to_dict(),
        source=found.source,
        prices=None if paid is None else str(paid),
        headline=headline,
        choices=tuple(choices),
        crossings=tuple(crossings([offer for offer in found.offers if offer.gpus == best.gpus])),
        memory=_memory(asked),
        command=quantize_command(best.format, model or asked.given.source or asked.model_name, asked.model)
        if model is not None or not asked.given.is_random
        else None,
        notes=tuple(notes),
    )


def _asked(
    model: str | Path | None, gpu: str | None, mode: str, work: Workload, given: Measurements
) -> _Asked:
    shape = shapes.shape(model) if model is not None else None
    on = gpus.gpu(gpu) if gpu is not None and gpu.lower() not in (CPU, given.gpu) else None
    measured.check(given, shape, on, gpu)
    name = on.name if on is not None else (gpu or given.gpu or "").lower()
    if not given.benchmarks and (shape is None or not name):
        missing = [option for option, value in (("--model", shape), ("--gpu", name)) if not value]
        raise MeasurementError(f"give {' and '.join(missing)}, or measurements of pennyweight benchmark")
    if on is None and name and name != CPU:
        on = gpus.known(name)
    shape = shape or given.shape
    model_name = shape.name if shape is not None else given.model or "model"
    return _Asked(shape, model_name, on, name or measured.MACHINE, mode, work, given)


def _offers(asked: _Asked) -> Offers:
    """What the first source that has the workload says."""
    found = measured.offers(asked.given, asked.mode, asked.work) if asked.given.benchmarks else None
    if found is not None:
        return found
    notes = []
    if asked.given.benchmarks:
        notes.append(f"The measurements have no {asked.mode} rows of {asked.work}: another source is taken.")
    if asked.gpu is None or asked.model is None:
        what = (
            "no model is named"
            if asked.model is None
            else f"neither study nor model covers '{asked.gpu_name}'"
        )
        raise MeasurementError(
            f"nothing is known of {asked.work}, {asked.mode}: {what}; measure it with pennyweight benchmark"
        )
    found = printed.offers(asked.model, asked.gpu, asked.mode, asked.work)
    if found is None:
        found = modelled.offers(asked.model, asked.gpu, asked.mode, asked.work)
        if any(case not in use_cases.STUDY for case, _ in asked.work.cases):
            notes.append("The study has its own seven use cases only.")
        else:
            table = "Table 5" if asked.mode == "sync" else "Table 6"
            notes.append(f"The study's {table} has no {asked.model.name} on {asked.gpu.name}.")
        notes.append(f"{fitted()}.")
        if not found.offers:
            raise MeasurementError(
                f"{asked.model.name} fits no number of {asked.gpu.name} up to {COUNTS[-1]} in any format: "
                + " ".join(found.notes)
            )
    elif asked.mode == "async":
        notes.append(
            "Latencies at these throughputs are the roofline model's, scaled to the study's figures."
        )
        notes.append(f"{fitted()}.")
    return Offers(found.source, found.offers, [*notes, *found.notes])


def _own_prices(price: float | None, prices: str | Path | None) -> Prices | None:
    if price is not None and prices is not None:
        raise MeasurementError("give price or prices, not both")
    if price is not None:
        return money.flat_price(price)
    return None if prices is None else money.read_prices(prices)


def _prices(own: Prices | None, asked: _Asked, found: Offers) -> Prices | None:
    """The user's prices, else those of the benchmark, else the study's; None where none has this GPU."""
    if own is not None:
        for offer in found.offers:
            own.per_hour(asked.gpu_name, offer.gpus)  # refuses a GPU that it does not have
        return own
    for prices in (asked.given.prices, money.study_prices()):
        if prices is not None and asked.gpu_name in prices.machines:
            return prices
    return None


def _memory(asked: _Asked) -> dict[str, dict[str, object]]:
    """By format: bytes of weights, of the longest query's KV cache, and the numbers of GPUs that hold both."""
    if asked.model is None or asked.gpu is None:
        return {}
    return {
        format_: {
            "weights_bytes": round(asked.model.weight_bytes(format_)),
            "kv_bytes_per_query": asked.work.longest.tokens * asked.model.kv_bytes,
            "gpus_that_fit": modelled.fits(asked.model, asked.gpu, format_, asked.work),
        }
        for format_ in modelled.FORMATS
        if asked.gpu.why_not(format_) is None
    }
