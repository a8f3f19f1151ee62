# SPDX-License-Identifier: Apache-2.0
"""Offers of the study's Tables 5 and 6: six rows each of a model on a GPU."""

from __future__ import annotations

from pennyweight import study, use_cases
from pennyweight.recommend.gpus import Gpu, gpu
from pennyweight.recommend.modelled import curve
from pennyweight.recommend.offers import Offer, Offers, Speed
from pennyweight.recommend.roofline import Roofline
from pennyweight.recommend.shapes import Shape, shape
from pennyweight.recommend.workload import Workload
from pennyweight.study import Row
from pennyweight.use_cases import UseCase


def offers(wanted: Shape, on: Gpu, mode: str, workload: Workload) -> Offers | None:
    """Return the study's rows of a model of this shape on this GPU; None where it has none, or not these use cases.

    Latencies of many queries at once are not in the study: they are the roofline model's, scaled to the study's
    throughput at saturation and to its latency of one query.
    """
    table = study.table(5 if mode == "sync" else 6)
    rows = _rows(table, wanted, on)
    if not rows or any(case not in use_cases.STUDY for case, _ in workload.cases):
        return None
    columns = {case.name: f"{case.name}.{_quantity(mode)}" for case, _ in workload.cases}
    found = [
        Offer(
            row.scheme,
            int(row.keys["gpus"]),
            {case.name: _speed(row, on, mode, case) for case, _ in workload.cases},
        )
        for row in rows
    ]
    odd = [e for row in rows for column in columns.values() for e in table.erratum(row, column)]
    notes = [f"{table.name}, {e.column}, is an erratum: {e.note}" for e in odd]
    name = f"the study's {table.name}, {rows[0].model} on {rows[0].keys['gpu']}"
    same = "" if shape(rows[0].model).name == wanted.name else f" (the same shape as {wanted.name})"
    return Offers(name + same, found, list(dict.fromkeys(notes)))


def _rows(table: study.Table, wanted: Shape, on: Gpu) -> list[Row]:
    return [
        row for row in table.rows if gpu(row.keys["gpu"]).name == on.name and shape(row.model).same(wanted)
    ]


def _quantity(mode: str) -> str:
    return "latency_s" if mode == "sync" else "throughput_qps"


def _speed(row: Row, on: Gpu, mode: str, case: UseCase) -> Speed:
    value = _value(row, f"{case.name}.{_quantity(mode)}")
    if mode == "sync":
        return Speed(value, value)
    model = Roofline(shape(row.model), on, int(row.keys["gpus"]), row.scheme)
    full = model.throughput(case, max(1, model.in_flight(case))) / value
    points = curve(model, case, alone=_alone(row, on, case), full=full)
    return Speed(1 / value, points[-1][1], points)


def _alone(row: Row, on: Gpu, case: UseCase) -> float:
    """By what factor the study's Table 5 is slower than the roofline for one query, at Table 5's number of GPUs."""
    table = study.table(5)
    same = [other for other in _rows(table, shape(row.model), on) if other.scheme == row.scheme]
    if not same or table.erratum(same[0], f"{case.name}.latency_s"):
        return 1.0
    model = Roofline(shape(row.model), on, int(same[0].keys["gpus"]), row.scheme)
    return _value(same[0], f"{case.name}.latency_s") / model.latency(case)


def _value(row: Row, column: str) -> float:
    cell = row.cells[column]
    assert cell is not None  # no cell of these tables is empty
    return cell.value
