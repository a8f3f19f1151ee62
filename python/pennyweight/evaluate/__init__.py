# SPDX-License-Identifier: Apache-2.0
"""How much a model lost: `pw.evaluate(model, baseline=...)` runs suites; the statistics are functions beside it.

pw.evaluate(["out-fp8", "out-int4"], baseline="Llama-3.1-8B", suites=["quick"], data="texts.txt", out="runs")
pw.evaluate.recovery(scores, baseline), .normalize, .pass_at_k, .flips, .mcnemar, .bootstrap_interval
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from pennyweight.evaluate.evaluation import Evaluation
from pennyweight.evaluate.results import read
from pennyweight.evaluate.runner import Runner
from pennyweight.evaluate.statistics import (
    Flips,
    Interval,
    bootstrap_interval,
    compare_items,
    flips,
    mcnemar,
    normalize,
    pass_at_k,
    recovery,
    task_scores,
)
from pennyweight.evaluate.suites import SUITES, Options, Suite
from pennyweight.evaluate.targets import Completion, Target, open_target

__all__ = [
    "SUITES",
    "Completion",
    "Evaluation",
    "Flips",
    "Interval",
    "Options",
    "Suite",
    "Target",
    "bootstrap_interval",
    "compare_items",
    "flips",
    "mcnemar",
    "normalize",
    "open_target",
    "pass_at_k",
    "read",
    "recovery",
    "run",
    "task_scores",
]
Source = str | Path | nn.Module | Target


def run(
    models: Source | Sequence[Source],
    *,
    baseline: Source | None = None,
    suites: str | Sequence[str] = "quick",
    out: str | Path | None = None,
    tokenizer: Any = None,
    progress: bool = True,
    **options: Any,
) -> Evaluation:
    """Run suites on models and their baseline; `pw.evaluate(...)` is this function.

    Args:
        models: One or several: a folder, a model of transformers (quantized by us or not), the URL of an
            OpenAI-compatible server, or what `open_target` made of one.
        baseline: What they were made from; None: there is nothing to compare with.
        suites: One name or several, of `SUITES`.
        out: Folder for a JSON per model; a run that was stopped goes on from there. None: nothing is written.
        tokenizer: Of models that carry none (objects, servers), or its folder.
        progress: Show bars.
        options: Fields of `Options`: data, prompts, datasets, limit, seed, samples, ...
    Returns:
        Tables that show themselves; `.to_dict()`; `[name]["quick"]["metrics"]["kl"]`.
    Raises:
        EvaluationError: Unknown suites or options, missing libraries or data, a server that fails, NaN. What is done by
            then is in `out`, marked as partial.
    """
    runner = Runner([suites] if isinstance(suites, str) else suites, _options(options), _path(out), progress)
    sources: list[Any] = list(models) if isinstance(models, (list, tuple)) else [models]
    first = (
        None
        if baseline is None
        else open_target(baseline, tokenizer=tokenizer, name=_name(baseline, "baseline"))
    )
    return runner.run([open_target(source, tokenizer=tokenizer) for source in sources], first)


def _options(options: dict[str, Any]) -> Options:
    from pennyweight.errors import EvaluationError
    from pennyweight.evaluate.suites import unknown

    for name in options:
        if name not in Options.__dataclass_fields__:
            raise EvaluationError(f"evaluate: {unknown('option', name, Options.__dataclass_fields__)}")
    return Options(**options)


def _path(out: str | Path | None) -> Path | None:
    return None if out is None else Path(out)


def _name(source: Source, name: str) -> str | None:
    """A model object has no name of its own; a folder and a server have."""
    return name if isinstance(source, nn.Module) else None


class _Callable(ModuleType):
    """Makes `pw.evaluate` a function that has functions."""

    def __call__(self, *args: Any, **kwargs: Any) -> Evaluation:
        return run(*args, **kwargs)


_Callable.__call__.__doc__ = run.__doc__
sys.modules[__name__].__class__ = _Callable
