# SPDX-License-Identifier: Apache-2.0
"""What a format keeps of the model's answers: from `pennyweight evaluate`, else from the study, else not known.

One number per format: the lowest recovery over the suites that were measured, since a bound is to hold on each. A suite
can be named instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pennyweight import study
from pennyweight.recommend.names import find, plain
from pennyweight.recommend.shapes import Shape

#: The study's tables with a recovery, by suite.
STUDY = {"openllm-v1": 2, "openllm-v2": 3, "reasoning": 4}


@dataclass(frozen=True)
class Recovery:
    """Percent of the baseline's score, and where it is from."""

    percent: float
    source: str


BASELINE = Recovery(100.0, "it is the baseline")


def recoveries(
    model: Shape | None, evaluations: Sequence[Mapping[str, Any]], suite: str | None = None
) -> dict[str, Recovery]:
    """Return the recovery of each format that has one.

    Args:
        model: Whose; None: not known, and then the study's are not taken.
        evaluations: Results of `pennyweight evaluate`, read.
        suite: Only this one; None: the lowest of all that were measured.
    Raises:
        MeasurementError: Neither the evaluations nor the study have that suite.
    """
    measured = {name for result in evaluations for name in result["suites"]}
    if suite is not None and suite not in measured | set(STUDY):
        find(suite, {}, "suite", sorted(measured | set(STUDY)))
    found: dict[str, Recovery] = {"BF16": BASELINE}
    for result in evaluations:
        format_ = result["model"].get("scheme")
        values = {
            name: one["recovery"]["value"]
            for name, one in result["suites"].items()
            if one["recovery"] is not None and suite in (None, name)
        }
        if format_ and values:
            lowest = min(values, key=values.__getitem__)
            here = Recovery(values[lowest], f"evaluate, {lowest}, {result['model'].get('name')}")
            if format_ not in found or here.percent < found[format_].percent:
                found[format_] = here
    for format_, theirs in _of_study(model, suite).items():
        found.setdefault(format_, theirs)
    return found


def _of_study(model: Shape | None, suite: str | None) -> dict[str, Recovery]:
    found: dict[str, Recovery] = {}
    for name, number in STUDY.items():
        table = study.table(number)
        for row in table.rows:
            cell = row.cells["recovery"]
            mine = model is not None and _plain(row.model) == _plain(model.name)
            if mine and cell is not None and suite in (None, name) and row.scheme != "BF16":
                here = Recovery(cell.value, f"the study's {table.name}, {name}")
                if row.scheme not in found or here.percent < found[row.scheme].percent:
                    found[row.scheme] = here
    return found


def _plain(name: str) -> str:
    return plain(name).removeprefix("meta").removesuffix("instruct")
