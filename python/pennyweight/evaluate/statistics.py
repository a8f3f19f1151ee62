# SPDX-License-Identifier: Apache-2.0
"""What makes a difference a difference: functions on plain numbers, for whoever wants to call them.

    recovery          100 · mean(scores) / mean(baseline), a ratio of averages
    normalize         (s − r) / (1 − r), not clipped: chance is 0, everything right is 1
    pass_at_k         1 − C(n − c, k) / C(n, k), unbiased
    flips             answers that turned right and answers that turned wrong
    mcnemar           how likely such flips are when neither model is better
    bootstrap_interval  of a mean, a difference or a recovery, by drawing items anew
    compare_items     all of it for the items of two runs, with a verdict

A model and its baseline answer the same items, so everything is paired: items are drawn together with both answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from pennyweight.errors import EvaluationError

#: Below this p a difference is shown; intervals have the complement's confidence.
SIGNIFICANCE = 0.05
#: McNemar's test is exact up to this many flips, and a corrected chi-square beyond.
EXACT_FLIPS = 1000
#: Elements of one batch of the bootstrap's draws.
DRAWN = 1 << 22
NO_DIFFERENCE, BETTER, WORSE = "no difference shown", "better", "worse"
Scores = Mapping[str, float] | Sequence[float]


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its confidence interval, in the value's unit; None where it has none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Flips:
    """Answers of two models to the same questions.

    Attributes:
        n: Questions.
        gained: Wrong by the baseline, right by the model.
        lost: Right by the baseline, wrong by the model.
    """

    n: int
    gained: int
    lost: int


def recovery(scores: Scores, baseline: Scores) -> float:
    """Return how much of the baseline's average is left, in percent: 100 · mean(scores) / mean(baseline).

    Args:
        scores: The model's scores, one per task, by the task's name or in order; any unit.
        baseline: The baseline's, of the same tasks.
    Raises:
        EvaluationError: Other tasks, no task, or an average of the baseline that is not above zero.
    """
    ours, theirs = _paired_scores("recovery", scores, baseline)
    if not np.isfinite(theirs.mean()) or theirs.mean() <= 0:
        raise EvaluationError(f"recovery: the baseline's average must be above zero; got {theirs.mean():g}")
    return float(100 * ours.mean() / theirs.mean())


def normalize(score: float, chance: float) -> float:
    """Return a score on the scale where chance is 0 and everything right is 1, unclipped: (s − r) / (1 − r).

    Args:
        score: Share of right answers, 0 to 1.
        chance: The share that guessing gets, 0 up to but not 1.
    """
    if not 0 <= chance < 1:
        raise EvaluationError(f"normalize: chance must be at least 0 and below 1; got {chance}")
    return (score - chance) / (1 - chance)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the chance that one of k samples is right, unbiased, from n samples of which some were right.

    Raises:
        EvaluationError: k above n, or more right samples than there are.
    """
    if not (0 <= correct <= n and 1 <= k <= n):
        raise EvaluationError(
            f"pass_at_k: needs 0 <= correct <= n and 1 <= k <= n; got {n=}, {correct=}, {k=}"
        )
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def flips(correct: Sequence[bool], baseline: Sequence[bool]) -> Flips:
    """Count the answers that turned right and those that turned wrong, question by question."""
    if len(correct) != len(baseline):
        raise EvaluationError(
            f"flips: {len(correct)} answers and {len(baseline)} of the baseline; pair them first"
        )
    gained = sum(now and not before for now, before in zip(correct, baseline, strict=True))
    lost = sum(before and not now for now, before in zip(correct, baseline, strict=True))
    return Flips(len(correct), gained, lost)


def mcnemar(gained: int, lost: int, method: str = "auto") -> float:
    """Return McNemar's two-sided p: how likely flips this uneven are when each goes either way alike.

    Args:
        gained, lost: Flips in each direction; unchanged answers do not count.
        method: "exact" is the binomial test; "mid-p" counts the observed outcome half, which is less
            conservative; "chi2" is (|gained − lost| − 1)² / (gained + lost) with one degree of freedom, its
            continuity correction included; "auto" is exact up to 1000 flips, then chi2.
    """
    if gained < 0 or lost < 0:
        raise EvaluationError(f"mcnemar: counts must not be negative; got {gained=}, {lost=}")
    total, few = gained + lost, min(gained, lost)
    if method == "auto":
        method = "exact" if total <= EXACT_FLIPS else "chi2"
    if method not in ("exact", "mid-p", "chi2"):
        raise EvaluationError(f"mcnemar: method must be auto, exact, mid-p or chi2; got {method!r}")
    if total == 0:
        return 1.0
    if method == "chi2":
        return math.erfc(math.sqrt(max(abs(gained - lost) - 1, 0) ** 2 / total / 2))
    tail = sum(math.comb(total, i) for i in range(few + 1))
    if method == "exact":
        return min(1.0, 2 * tail / (1 << total))
    return min(1.0, (2 * tail - math.comb(total, few)) / (1 << total))


def bootstrap_interval(
    scores: Sequence[float],
    baseline: Sequence[float] | None = None,
    *,
    statistic: str | None = None,
    groups: Sequence[str] | None = None,
    samples: int = 2000,
    confidence: float = 1 - SIGNIFICANCE,
    seed: int = 0,
) -> Interval:
    """Return a percentile interval by drawing items anew, a model's and its baseline's answers together.

    Args:
        scores: The model's score of each item (right answers: 1, wrong: 0).
        baseline: The baseline's, of the same items in the same order.
        statistic: "mean" of the scores alone; "difference" of the means; "recovery", 100 · mean / mean. By
            default the difference where there is a baseline, else the mean.
        groups: Each item's task, "bbh/navigate" for a part of a task; the mean is then that over tasks of the
            mean over their parts, and items are drawn within their part. None: all items are one task.
        samples: Draws.
        confidence: Share of the draws inside the interval.
        seed: Of the draws; the same seed gives the same interval.
    Returns:
        The interval; without ends where some draw of so few items leaves the baseline nothing to recover.
    Raises:
        EvaluationError: No items, lengths that differ, a statistic that is none of these, a recovery of nothing.
    """
    statistic = statistic or ("mean" if baseline is None else "difference")
    if statistic not in ("mean", "difference", "recovery") or (statistic != "mean" and baseline is None):
        raise EvaluationError(
            f"bootstrap_interval: statistic must be mean, or with a baseline difference or recovery; got {statistic!r}"
        )
    ours = np.asarray(scores, dtype=np.float64)
    theirs = np.zeros_like(ours) if baseline is None else np.asarray(baseline, dtype=np.float64)
    parts = np.asarray([""] * len(ours) if groups is None else list(groups))
    if not len(ours) or ours.shape != theirs.shape or parts.shape != ours.shape:
        raise EvaluationError(
            f"bootstrap_interval: needs items, as many in each list; got {len(ours)} scores, "
            f"{len(theirs)} of the baseline, {len(parts)} groups"
        )
    random = np.random.default_rng(seed)
    drawn = np.zeros((samples, 2))
    exact = np.zeros(2)
    for part, weight in _weights(parts.tolist()).items():
        pairs = np.stack([ours[parts == part], theirs[parts == part]], 1)
        exact += weight * pairs.mean(0)
        drawn += weight * _drawn_means(pairs, samples, random)
    if statistic == "recovery" and exact[1] <= 0:
        raise EvaluationError(
            f"bootstrap_interval: the baseline's mean must be above zero for a recovery; got {exact[1]:g}"
        )
    value = float(_statistic(statistic, exact[None])[0])
    if statistic == "recovery" and (drawn[:, 1] <= 0).any():
        return Interval(value, None, None)
    low, high = np.quantile(_statistic(statistic, drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def task_scores(items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean score of each task, 0 to 100, from items with `task` and `correct` or `score`.

    Items of the task "bbh/navigate" are a part of "bbh", whose score is the mean over its parts.
    """
    parts: dict[str, list[float]] = {}
    for item in items:
        score = item_score(item)
        if score is not None:
            parts.setdefault(str(item.get("task", "")), []).append(score)
    tasks: dict[str, list[float]] = {}
    for part, scores in parts.items():
        tasks.setdefault(part.partition("/")[0], []).append(float(np.mean(scores)))
    return {task: 100 * float(np.mean(means)) for task, means in tasks.items()}


def item_score(item: Mapping[str, Any]) -> float | None:
    """Return an item's `score`, else its `correct` as 1 or 0; None where it has neither.

    One with both, such as a right answer whose score is what is left above chance, counts by its score and flips by
    `correct`.
    """
    if item.get("score") is not None:
        return float(item["score"])
    return None if item.get("correct") is None else float(bool(item["correct"]))


def compare_items(
    items: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]], seed: int = 0
) -> dict[str, Any] | None:
    """Pair the items of two runs by `id` and say whether they differ.

    Args:
        items: The model's: `id`, and `correct` (bool) or `score` (the higher the better), or both.
        baseline: The baseline's.
        seed: Of the bootstrap.
    Returns:
        n: items that both have; gained, lost, mcnemar_p: of those that are right or wrong, None where there are none;
        difference: of the mean score, in the items' unit, with low and high, the ends of its 95 % interval; verdict:
        "better", "worse" or "no difference shown", by McNemar's test (p < 0.05) where all items are right or wrong,
        else by whether the interval leaves out zero. None where no item is in both.
    """
    before = {item["id"]: item for item in baseline}
    both = [(item, before[item["id"]]) for item in items if item["id"] in before]
    scored = [(a, b, item_score(a), item_score(b)) for a, b in both]
    kept = [(a, b, x, y) for a, b, x, y in scored if x is not None and y is not None]
    if not kept:
        return None
    ours, theirs = [x for *_, x, _ in kept], [y for *_, y in kept]
    interval = bootstrap_interval(ours, theirs, seed=seed)
    judged = [
        (bool(a["correct"]), bool(b["correct"]))
        for a, b, *_ in kept
        if a.get("correct") is not None and b.get("correct") is not None
    ]
    result: dict[str, Any] = {"n": len(kept), "gained": None, "lost": None, "mcnemar_p": None}
    low, high = interval.low, interval.high
    shown = low is not None and high is not None and (low > 0 or high < 0)
    if judged:
        count = flips([now for now, _ in judged], [before for _, before in judged])
        p = mcnemar(count.gained, count.lost)
        result |= {"gained": count.gained, "lost": count.lost, "mcnemar_p": p}
        if len(judged) == len(kept):
            shown = p < SIGNIFICANCE
    verdict = (BETTER if interval.value > 0 else WORSE) if shown else NO_DIFFERENCE
    return result | {
        "difference": interval.value, "low": low, "high": high, "verdict": verdict
    }  # fmt: skip


def _paired_scores(where: str, scores: Scores, baseline: Scores) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(scores, Mapping) != isinstance(baseline, Mapping):
        raise EvaluationError(f"{where}: give both lists of scores by name, or both in order")
    if isinstance(scores, Mapping):
        theirs_by_name = cast("Mapping[str, float]", baseline)
        if set(scores) != set(theirs_by_name):
            other = ", ".join(sorted(set(scores) ^ set(theirs_by_name)))
            raise EvaluationError(
                f"{where}: only one of the two has a score of: {other}; compare the same tasks"
            )
        names = sorted(scores)
        ours, theirs = [scores[n] for n in names], [theirs_by_name[n] for n in names]
    else:
        ours, theirs = list(scores), list(cast("Sequence[float]", baseline))
    if not ours or len(ours) != len(theirs):
        raise EvaluationError(f"{where}: needs scores of the same tasks; got {len(ours)} and {len(theirs)}")
    return np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)


def _weights(parts: Sequence[str]) -> dict[str, float]:
    """Return what each part's mean counts in the mean over tasks."""
    tasks: dict[str, list[str]] = {}
    for part in dict.fromkeys(parts):
        tasks.setdefault(part.partition("/")[0], []).append(part)
    return {part: 1 / len(tasks) / len(names) for names in tasks.values() for part in names}


def _drawn_means(pairs: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    """Return the means (samples, 2) of as many draws of the rows of pairs (n, 2), with replacement.

    Equal rows are drawn as one: how often each comes is a multinomial draw, whatever n is.
    """
    rows, counts = np.unique(pairs, axis=0, return_counts=True)
    size = max(1, DRAWN // len(rows))
    means = [
        random.multinomial(len(pairs), counts / len(pairs), size=min(size, samples - start)) @ rows
        for start in range(0, samples, size)
    ]
    return np.concatenate(means) / len(pairs)


def _statistic(name: str, means: Any) -> Any:
    ours, theirs = means[:, 0], means[:, 1]
    if name == "mean":
        return ours
    if name == "difference":
        return ours - theirs
    return 100 * ours / theirs
