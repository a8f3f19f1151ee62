# SPDX-License-Identifier: Apache-2.0
"""Holding the study's numbers against those they follow from, as intervals of what may have been printed so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pennyweight.study import recompute_speed
from pennyweight.study.intervals import Check, Interval, mean, recovery, rounded
from pennyweight.study.tables import Row, Table, table

V1 = ("mmlu", "mmlu_cot", "arc_challenge", "gsm8k", "hellaswag", "winogrande", "truthfulqa")
V2 = ("ifeval", "bbh", "math_hard", "gpqa", "musr", "mmlu_pro")
REASONING = ("aime24", "math_500", "gpqa_diamond")


def checks() -> list[Check]:
    """Return every check that the kept tables allow."""
    return [
        *_averages(1, "academic", ("openllm_v1", "openllm_v2")),
        *_averages(1, "real_world", ("arena_hard", "humaneval", "mbpp")),
        *_repeats(1, 2, {"openllm_v1": "average"}),
        *_repeats(1, 3, {"openllm_v2": "average", "arena_hard": "arena_hard", "humaneval": "humaneval"}),
        *_repeats(1, 7, {"arena_hard": "average"}),
        *_repeats(1, 12, {"openllm_v1": "average"}),
        *_repeats(1, 13, {"openllm_v2": "average"}),
        *_averages(2, "average", V1),
        *_recoveries(2, V1),
        *_averages(3, "average", V2),
        *_recoveries(3, V2),
        *_repeats(3, 7, {"arena_hard": "average"}),
        *_repeats(3, 13, {"average": "average", **{task: task for task in V2}}),
        *_averages(4, "average", REASONING),
        *_recoveries(4, REASONING),
        *_averages(7, "average", ("run_1", "run_2")),
        *recompute_speed.checks(),
        *_task_recoveries(10, 2, V1),
        *_task_recoveries(11, 3, V2),
        *_task_recoveries(11, 13, V2),
        *_averages(12, "average", V1),
        *_repeats(12, 2, {"average": "average", **{task: task for task in V1}}),
        *_averages(13, "average", V2),
    ]


def disagreements() -> list[Check]:
    """Return the checks that fail. Each is an erratum in the data."""
    return [check for check in checks() if not check.agrees]


def _averages(number: int, column: str, parts: Sequence[str]) -> Iterator[Check]:
    """A column is the mean of others in its row."""
    here = table(number)
    for row in here.rows:
        yield from _check(here, row, column, here.name, mean(_cells(row, parts)))


def _recoveries(number: int, tasks: Sequence[str]) -> Iterator[Check]:
    """Recovery is the ratio of two averages."""
    here = table(number)
    for row, baseline in _pairs(here):
        expected = recovery(mean(_cells(row, tasks)), mean(_cells(baseline, tasks)))
        yield from _check(here, row, "recovery", here.name, expected)


def _task_recoveries(number: int, source: int, tasks: Sequence[str]) -> Iterator[Check]:
    """Each cell is the ratio of a score of `source` to its baseline's."""
    here, there = table(number), table(source)
    for row in here.rows:
        for scores, baseline in _pairs(there, row):
            for task in tasks:
                (score,), (whole,) = _cells(scores, [task]), _cells(baseline, [task])
                yield from _check(here, row, task, there.name, recovery(score, whole))


def _repeats(number: int, source: int, columns: dict[str, str]) -> Iterator[Check]:
    """Columns repeat those of `source`, to other digits perhaps."""
    here, there = table(number), table(source)
    for row in here.rows:
        for other in _same(there, row):
            for column, theirs in columns.items():
                for expected in _cells(other, [theirs]):
                    yield from _check(here, row, column, there.name, expected)


def _check(here: Table, row: Row, column: str, against: str, expected: Interval) -> Iterator[Check]:
    cell = row.cells[column]
    if cell is not None:
        yield Check(here, row, column, against, rounded(cell), expected)


def _cells(row: Row, columns: Iterable[str]) -> list[Interval]:
    cells = [row.cells[column] for column in columns]
    return [rounded(cell) for cell in cells if cell is not None]


def _same(there: Table, row: Row) -> list[Row]:
    """Rows about the same model and scheme. The study's own checkpoints are GPTQ where it does not say so."""
    method = row.keys.get("method", "GPTQ")
    return [
        other
        for other in there.rows
        if other.model == row.model
        and other.scheme == row.scheme
        and other.keys.get("method", "GPTQ") == method
    ]


def _pairs(there: Table, row: Row | None = None) -> Iterator[tuple[Row, Row]]:
    """Quantized rows with their baselines: all of a table, or those about the same as `row`."""
    for other in there.rows if row is None else _same(there, row):
        baseline = there.baseline(other)
        if baseline is not None and other is not baseline:
            yield other, baseline
