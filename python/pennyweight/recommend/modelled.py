# SPDX-License-Identifier: Apache-2.0
"""Offers of the roofline model, and its curves, scaled to what was measured at their ends."""

from __future__ import annotations

import math

from pennyweight import schemes
from pennyweight.recommend.gpus import Gpu
from pennyweight.recommend.offers import Curve, Offer, Offers, Speed
from pennyweight.recommend.roofline import COUNTS, Roofline
from pennyweight.recommend.shapes import Shape
from pennyweight.recommend.workload import Workload
from pennyweight.use_cases import UseCase

FORMATS = ("BF16", *schemes.names())
SOURCE = "roofline model"


def offers(shape: Shape, gpu: Gpu, mode: str, workload: Workload) -> Offers:
    """Return what the roofline model says of every format that the GPU computes, at each number that holds it.

    Args:
        shape: The model's.
        gpu: What it runs on.
        mode: "sync" or "async".
        workload: What is asked.
    """
    found, notes = [], []
    for format_ in FORMATS:
        why = gpu.why_not(format_)
        if why is not None:
            notes.append(f"{format_}: {why}.")
            continue
        counts = fits(shape, gpu, format_, workload)
        found += [_offer(Roofline(shape, gpu, n, format_), mode, workload) for n in counts]
        if not counts:
            notes.append(f"{format_}: does not fit {COUNTS[-1]} x {gpu.name} with this workload's KV cache.")
    return Offers(SOURCE, found, notes)


def fits(shape: Shape, gpu: Gpu, format_: str, workload: Workload) -> list[int]:
    """Return at which numbers of GPUs weights and KV cache of the longest query fit, and heads can be shared out."""
    models = [Roofline(shape, gpu, n, format_) for n in COUNTS]
    return [
        model.gpus
        for model in models
        if shape.num_attention_heads % model.tensor_parallel == 0 and model.in_flight(workload.longest)
    ]


def speed(model: Roofline, mode: str, case: UseCase) -> Speed:
    """Return the model's speed at one use case."""
    if mode == "sync":
        return Speed(model.latency(case), model.latency(case))
    points = curve(model, case)
    return Speed(1 / points[-1][0], points[-1][1], points)


def curve(model: Roofline, case: UseCase, alone: float = 1.0, full: float = 1.0) -> Curve:
    """Return latency by load, from one query in flight to as many as memory holds.

    Args:
        model: The roofline.
        case: The use case.
        alone: Factor by which one query was measured slower than the model says.
        full: The same at the highest throughput; between them the factor moves with the logarithm of the queries in
            flight. These stay what they are: load · latency.
    """
    most = max(1, model.in_flight(case))
    points = []
    for queries in sorted({2**i for i in range(most.bit_length())} | {most}):
        place = math.log(queries) / math.log(most) if most > 1 else 1.0
        factor = alone ** (1 - place) * full**place
        latency = factor * model.latency(case, queries)
        points.append((queries / latency, latency))
    return tuple(points)


def _offer(model: Roofline, mode: str, workload: Workload) -> Offer:
    return Offer(
        model.format, model.gpus, {case.name: speed(model, mode, case) for case, _ in workload.cases}
    )
