# SPDX-License-Identifier: Apache-2.0
"""A run: the baseline first, then each model, suite by suite; whatever stops it, what is done is kept.

for the baseline, then each model          for each suite
  OUT/<name>.json  there, same inputs? ──► taken as it is
                   else ─────────────────► run; items go to the store as they come ──► paired with the baseline's
  an error or Ctrl-C ────────────────────► OUT/<name>.json with the suite marked partial; the store stays
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pennyweight.errors import EvaluationError, PennyweightError
from pennyweight.evaluate import results, text
from pennyweight.evaluate.evaluation import Evaluation
from pennyweight.evaluate.in_process import InProcess
from pennyweight.evaluate.results import Store
from pennyweight.evaluate.statistics import (
    bootstrap_interval,
    compare_items,
    item_score,
    recovery,
    task_scores,
)
from pennyweight.evaluate.suites import Job, Options, Suite, SuiteResult, find_suite
from pennyweight.evaluate.targets import Target, check_same_tokens
from pennyweight.json_file import checksum

#: Distributions whose versions go into a result, where they are installed.
VERSIONS = (
    "torch", "transformers", "numpy", "safetensors", "openai", "lm_eval", "datasets", "rouge-score", "bert-score",
    "sentence-transformers", "math-verify",
)  # fmt: skip
#: A task's score and the mean of its items may differ by this before no interval is given, in points.
SAME_SCORE = 1e-6


class Runner:
    """Runs suites on models and keeps their results.

    Args:
        suites: Names of suites; their libraries are looked for at once.
        options: For the suites.
        out: Folder of results, or None: nothing is written.
        progress: Show bars.
    """

    def __init__(self, suites: Sequence[str], options: Options, out: Path | None, progress: bool) -> None:
        if not suites:
            raise EvaluationError("evaluate: name at least one suite")
        self.suites = [(suite, suite.load()) for suite in dict.fromkeys(find_suite(name) for name in suites)]
        self.options, self.out, self.progress = options, out, progress
        self._asked = self._inputs()

    def run(self, models: Sequence[Target], baseline: Target | None) -> Evaluation:
        """Measure the baseline, then each model."""
        _check_names([*([baseline] if baseline else []), *models])
        for model in models:
            if baseline is not None:
                check_same_tokens(model, baseline)
        before = None
        if baseline is not None:
            if isinstance(baseline, InProcess):
                baseline.remember()
            before = self._measure(baseline, None, None)
        done = []
        for model in models:
            done.append(self._measure(model, baseline, before))
            if isinstance(model, InProcess):
                model.close()
        if isinstance(baseline, InProcess):
            baseline.close()
        return Evaluation(before, done, tuple(suite.name for suite, _ in self.suites))

    def _measure(
        self, target: Target, baseline: Target | None, before: dict[str, Any] | None
    ) -> dict[str, Any]:
        path = None if self.out is None else self.out / f"{results.file_name(target.name)}.json"
        result = self._start(target, baseline, path)
        for suite, function in self.suites:
            key = self._fingerprint(suite, result)
            known = result["suites"].get(suite.name)
            if known is not None and known.get("fingerprint") == key and not known["partial"]:
                continue
            store = Store(self._store_path(suite, target, key))
            start = time.perf_counter()
            try:
                found = self._run(suite, function, target, baseline, store)
            except BaseException as error:
                result["suites"][suite.name] = _entry(_stopped(error, store), None, self.options, key, start)
                if path is not None:
                    results.write(path, result)
                    if isinstance(error, PennyweightError):
                        error.args = (f"{error}; what was done is in {path}, marked as partial",)
                raise
            theirs = None if before is None else before["suites"].get(suite.name)
            result["suites"][suite.name] = _entry(found, theirs, self.options, key, start)
            if path is not None:
                results.write(path, result)
            store.clear()
        return result

    def _run(
        self,
        suite: Suite,
        function: Callable[[Job], SuiteResult],
        target: Target,
        baseline: Target | None,
        store: Store,
    ) -> SuiteResult:
        from tqdm.auto import tqdm

        with tqdm(desc=f"{target.name}: {suite.name}", disable=not self.progress, leave=False) as bar:

            def progress(done: int, everything: int) -> None:
                bar.total = everything
                bar.update(done - bar.n)

            return function(Job(target, baseline, self.options, store, progress))

    def _start(self, target: Target, baseline: Target | None, path: Path | None) -> dict[str, Any]:
        """Return a result without suites, or that of an earlier run on the same model and baseline."""
        ours = target.describe()
        theirs = None if baseline is None else baseline.describe()
        if path is not None and path.exists():
            result = results.read(path)
            if _identity(result["model"]) != _identity(ours):
                raise EvaluationError(
                    f"{path}: is the result of another model of this name; choose another --out, or remove it"
                )
            if _identity(result["baseline"]) == _identity(theirs) and result["seed"] == self.options.seed:
                return {**result, "model": ours, "versions": _versions()}
        return {
            "pennyweight": importlib.metadata.version("pennyweight"), "model": ours, "baseline": theirs, "suites": {},
            "versions": _versions(), "seed": self.options.seed,
        }  # fmt: skip

    def _inputs(self) -> dict[str, Any]:
        """Return what the options come to, files by their contents."""
        prompts = self.options.prompts
        if prompts is not None and not prompts.is_file():
            raise EvaluationError(f"{prompts}: does not exist; --prompts takes a .jsonl file")
        digests = {"data": text.digest(self.options.data), "prompts": text.digest(prompts)}
        return {**self.options.to_dict(), "digests": digests}

    def _fingerprint(self, suite: Suite, result: dict[str, Any]) -> str:
        """Return what tells a result that may be taken over from one that is to be made anew."""
        parts = [
            suite.name,
            result["pennyweight"],
            self._asked,
            _identity(result["model"]),
            _identity(result["baseline"]),
        ]
        return checksum(parts)[:16]

    def _store_path(self, suite: Suite, target: Target, key: str) -> Path | None:
        if self.out is None:
            return None
        return self.out / ".resume" / results.file_name(target.name) / f"{suite.name}-{key}.jsonl"


def _entry(
    found: SuiteResult, before: dict[str, Any] | None, options: Options, fingerprint: str, start: float
) -> dict[str, Any]:
    """Return a suite's part of the result, compared with the baseline's."""
    compared = before is not None and not found.partial
    return {
        "metrics": found.metrics, "tasks": found.tasks,
        "recovery": _recovery(found, before, options.seed) if before is not None and compared else None,
        "pairs": compare_items(found.items, before["items"], options.seed) if before is not None and compared else None,
        "items": found.items, "notes": found.notes, "partial": found.partial,
        "seconds": time.perf_counter() - start, "options": options.to_dict(), "fingerprint": fingerprint,
    }  # fmt: skip


def _recovery(found: SuiteResult, before: dict[str, Any], seed: int) -> dict[str, Any] | None:
    """Return the recovery of the tasks that both have; its interval where items add up to the tasks' scores."""
    names = sorted(set(found.tasks) & set(before["tasks"]))
    theirs = {name: before["tasks"][name] for name in names}
    if not names or sum(theirs.values()) <= 0:
        return None
    value = recovery({name: found.tasks[name] for name in names}, theirs)
    old = {item["id"]: item for item in before["items"]}
    both = [(item, old[item["id"]]) for item in found.items if item["id"] in old]
    scored = [(a, b, item_score(a), item_score(b)) for a, b in both]
    kept = [(a, b, x, y) for a, b, x, y in scored if x is not None and y is not None]
    if not (
        _add_up([a for a, *_ in kept], found.tasks, names)
        and _add_up([b for _, b, *_ in kept], theirs, names)
    ):
        return {"value": value, "low": None, "high": None}
    groups = [str(a.get("task", "")) for a, *_ in kept]
    if len(names) == 1 and set(groups) == {""}:
        groups = names * len(kept)
    interval = bootstrap_interval(
        [x for *_, x, _ in kept], [y for *_, y in kept], statistic="recovery", groups=groups, seed=seed
    )
    return {"value": value, "low": interval.low, "high": interval.high}


def _add_up(items: list[dict[str, Any]], tasks: dict[str, float], names: list[str]) -> bool:
    means = task_scores(items)
    if set(means) == {""} and len(names) == 1:
        means = {names[0]: means[""]}
    return set(means) == set(names) and all(abs(means[name] - tasks[name]) < SAME_SCORE for name in names)


def _stopped(error: BaseException, store: Store) -> SuiteResult:
    why = " ".join(str(error).split()) or type(error).__name__
    items = [item for entry in store.items() for item in entry.get("items", [entry])]
    return SuiteResult({}, items=items, notes=[f"partial: stopped by: {why}"], partial=True)


def _identity(description: dict[str, Any] | None) -> str | None:
    """Return what makes a model itself: its hash, or for a server where it is."""
    if description is None:
        return None
    return description.get("hash") or f"{description.get('source')}#{description.get('model')}"


def _check_names(targets: Sequence[Target]) -> None:
    """Tell models of one name apart, as their files are named by it."""
    seen: dict[str, int] = {}
    for target in targets:
        count = seen[target.name] = seen.get(target.name, 0) + 1
        if count > 1:
            target.name = f"{target.name}-{count}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
