# SPDX-License-Identifier: Apache-2.0
"""A run beside the study's row: the same model where the study has it, else the nearest by size, and then said so."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pennyweight.grid import aligned, html_table
from pennyweight.study.tables import Column, Printed, Row, Table, table

#: Suite → (table, columns there) that measured the same.
MEASURED: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "openllm-v1": (
        (
            "Table 2",
            (
                "average",
                "mmlu",
                "mmlu_cot",
                "arc_challenge",
                "gsm8k",
                "hellaswag",
                "winogrande",
                "truthfulqa",
            ),
        ),
    ),
    "openllm-v2": (("Table 3", ("average", "ifeval", "bbh", "math_hard", "gpqa", "musr", "mmlu_pro")),),
    "code": (("Table 3", ("humaneval", "humaneval_plus")), ("Table 1", ("mbpp",))),
    "arena-hard": (("Table 7", ("average",)),),
    "ruler": (("Table 3", ("ruler",)),),
    "similarity": (("Figure 1", ("rouge1", "rougeL", "bertscore", "sts")),),
    "reasoning": (("Table 4", ("average", "aime24", "math_500", "gpqa_diamond")),),
}
#: What `evaluate` calls the format of a model that is not quantized.
UNQUANTIZED = ("bfloat16", "float16", "float32", None)
HEAD = ("", "this run", "its baseline", "recovery", "study", "study's BF16", "recovery")


@dataclass(frozen=True)
class Line:
    """One column of the study and the same score of the run; None where a number is missing."""

    title: str
    run: float | None
    baseline: float | None
    study: Printed | None
    study_baseline: Printed | None

    @property
    def recovery(self) -> float | None:
        """Of the run, percent."""
        return 100 * self.run / self.baseline if self.run is not None and self.baseline else None

    @property
    def study_recovery(self) -> float | None:
        """Of the study, percent."""
        return (
            100 * self.study.value / self.study_baseline.value if self.study and self.study_baseline else None
        )

    def cells(self) -> tuple[str, ...]:
        """Return the line under HEAD."""
        return (
            self.title, _number(self.run), _number(self.baseline), _percent(self.recovery),
            "-" if self.study is None else str(self.study),
            "-" if self.study_baseline is None else str(self.study_baseline), _percent(self.study_recovery),
        )  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A run beside the study. Shows itself in a terminal and in a notebook.

    Attributes:
        suite: As `pennyweight evaluate` names it.
        model: The study's model; None where nothing fits.
        scheme: The study's name of the format.
        same_model: Whether the run's model is the study's, not merely the nearest by size.
        lines: The scores.
        notes: What a reader must know: another model, known errata, why there is no row.
    """

    suite: str
    model: str | None
    scheme: str
    same_model: bool = False
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "suite": self.suite,
            "model": self.model,
            "scheme": self.scheme,
            "same_model": self.same_model,
            "lines": [
                {
                    "title": line.title, "run": line.run, "baseline": line.baseline, "recovery": line.recovery,
                    "study": None if line.study is None else line.study.value,
                    "study_baseline": None if line.study_baseline is None else line.study_baseline.value,
                    "study_recovery": line.study_recovery,
                }
                for line in self.lines
            ],
            "notes": list(self.notes),
        }  # fmt: skip

    @property
    def title(self) -> str:
        """What stands beside what, in one line."""
        return f"{self.suite} beside the study" + (f"'s {self.model}, {self.scheme}" if self.model else "")

    def __str__(self) -> str:
        lines = [self.title]
        if self.lines:
            lines += aligned([HEAD, *(line.cells() for line in self.lines)])
        return "\n".join([*lines, *self.notes])

    def _repr_html_(self) -> str:
        whole = html_table([HEAD, *(line.cells() for line in self.lines)]) if self.lines else ""
        return f"<p>{html.escape(self.title)}</p>{whole}" + "".join(
            f"<p>{html.escape(note)}</p>" for note in self.notes
        )


def compare(
    names: Sequence[str],
    scheme: str | None,
    suite: str,
    scores: Mapping[str, float | None],
    baseline: Mapping[str, float | None] | None = None,
    *,
    parameters: int | None = None,
) -> Comparison:
    """Put a run beside the study's row.

    Args:
        names: Of the model, and of whatever it was made from: any that tells ("Llama-3.1-8B-Instruct" in it).
        scheme: The run's format; None: not quantized.
        suite: As `pennyweight evaluate` names it.
        scores: The run's, in the study's units and by its columns' keys ("average", "mmlu", ...).
        baseline: Its baseline's, likewise.
        parameters: Of the model; where no name tells, the study's nearest model by size is taken.
    Returns:
        The comparison; without lines, and with the reason in its notes, where the study has nothing to compare.
    """
    format_ = "BF16" if scheme is None else scheme
    if suite not in MEASURED:
        return Comparison(suite, None, format_, notes=(f"The study did not measure what {suite} measures.",))
    rows = table(MEASURED[suite][0][0]).rows
    models = list(dict.fromkeys(row.model for row in rows))
    model = _named(names, models)
    chosen = model or _nearest(parameters, {row.model: _parameters(row.size) for row in rows})
    if chosen is None:
        reason = f"None of {', '.join(names)} names a model of the study, and the run's size is unknown."
        return Comparison(suite, None, format_, notes=(f"{reason} It has: {', '.join(models)}.",))
    lines, notes = [], []
    if model is None:
        size = _size(parameters or 0)
        notes.append(
            f"Another model: the run's has {size} parameters, the study's nearest by size is {chosen}."
        )
    for name, columns in MEASURED[suite]:
        found = table(name)
        row, whole = _row(found, chosen, format_), _row(found, chosen, "BF16")
        titles = {column.key: column for column in found.columns}
        lines += [_line(titles[key], scores, baseline or {}, row, whole) for key in columns]
        notes += [
            f"{name}, {titles[e.column].title}: {e.note}"
            for key in columns
            for e in (found.erratum(row, key) if row else [])
        ]
        if row is None:
            notes.append(f"{name} has no row of {chosen}, {format_}.")
    return Comparison(suite, chosen, format_, model is not None, tuple(lines), tuple(dict.fromkeys(notes)))


def beside(result: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> list[Comparison]:
    """Put each suite of a model's result, as `pennyweight evaluate` writes it, beside the study.

    Args:
        result: Of the model.
        baseline: Of its baseline.
    """
    model, whole = result["model"], result["baseline"] or {}
    names = [str(d[key]) for d in (model, whole) for key in ("name", "source", "model") if d.get(key)]
    scheme = None if model.get("scheme") in UNQUANTIZED else str(model["scheme"])
    found = []
    for suite, one in result["suites"].items():
        theirs = (baseline or {}).get("suites", {}).get(suite)
        found.append(
            compare(
                names, scheme, suite, _scores(one), _scores(theirs) if theirs else None,
                parameters=model.get("parameters") or whole.get("parameters"),
            )
        )  # fmt: skip
    return found


def _scores(suite: Mapping[str, Any]) -> dict[str, float | None]:
    """A suite's scores by the keys of the study's columns."""
    metrics, tasks = suite["metrics"], suite["tasks"]
    average = metrics.get("average", metrics.get("win_rate"))
    return {**metrics, **tasks, "average": average}


def _line(
    column: Column,
    scores: Mapping[str, float | None],
    baseline: Mapping[str, float | None],
    row: Row | None,
    whole: Row | None,
) -> Line:
    key = column.key
    printed, whole_printed = (None if found is None else found.cells[key] for found in (row, whole))
    return Line(column.title, scores.get(key), baseline.get(key), printed, whole_printed)


def _row(found: Table, model: str, scheme: str) -> Row | None:
    """The study's own checkpoints are GPTQ where the table has more than one method."""
    rows = [row for row in found.rows if row.model == model and row.scheme == scheme]
    return next((row for row in rows if row.keys.get("method", "GPTQ") == "GPTQ"), None)


def _named(names: Sequence[str], models: Sequence[str]) -> str | None:
    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]+", "", text.lower())

    return next((model for name in names for model in models if plain(model) in plain(name)), None)


def _nearest(parameters: int | None, models: Mapping[str, float]) -> str | None:
    if not parameters:
        return None
    return min(models, key=lambda model: abs(math.log(models[model] / parameters)))


def _parameters(size: str) -> float:
    return float(size.removesuffix("B")) * 1e9


def _size(parameters: int) -> str:
    return f"{parameters / 1e9:.3g} B" if parameters >= 1e8 else f"{parameters / 1e6:.3g} M"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) > 1 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"
