# SPDX-License-Identifier: Apache-2.0
"""The statistics, against cases worked out by hand and against scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import statistics as st


def test_recovery_is_a_ratio_of_averages() -> None:
    # (50 + 30) / 2 = 40 of (60 + 20) / 2 = 40; the average of ratios would be 116.7
    assert st.recovery({"a": 50.0, "b": 30.0}, {"b": 20.0, "a": 60.0}) == 100.0
    assert st.recovery([9.0], [10.0]) == 90.0


def test_recovery_of_the_study_s_table_2() -> None:
    bf16 = [68.3, 72.8, 81.4, 82.8, 80.5, 78.1, 54.5]
    w4a16 = [66.9, 71.1, 80.2, 82.9, 79.9, 78.0, 52.8]
    assert round(st.recovery(w4a16, bf16), 2) == 98.73  # printed as 98.72, from more digits


@pytest.mark.parametrize(
    ("scores", "baseline", "text"),
    [
        ({"a": 1.0}, {"b": 1.0}, "only one of the two has a score of: a, b"),
        ([1.0], [1.0, 2.0], "got 1 and 2"),
        ([], [], "got 0 and 0"),
        ([1.0], [0.0], "must be above zero; got 0"),
        ([1.0], [float("nan")], "got nan"),
        ({"a": 1.0}, [1.0], "both lists of scores by name"),
    ],
)
def test_recovery_refuses(scores: object, baseline: object, text: str) -> None:
    with pytest.raises(EvaluationError, match=text):
        st.recovery(scores, baseline)  # type: ignore[arg-type]


def test_normalize_does_not_clip() -> None:
    assert st.normalize(0.25, 0.25) == 0.0
    assert st.normalize(1.0, 0.25) == 1.0
    assert st.normalize(0.625, 0.25) == 0.5
    assert st.normalize(0.1, 0.25) == pytest.approx(-0.2)  # below chance stays below zero
    with pytest.raises(EvaluationError, match="chance"):
        st.normalize(0.5, 1.0)


def test_pass_at_k_counts_the_draws() -> None:
    assert st.pass_at_k(4, 2, 2) == pytest.approx(5 / 6)  # of 6 pairs one has none of the 2 right ones
    assert st.pass_at_k(50, 7, 1) == pytest.approx(7 / 50)
    assert (st.pass_at_k(5, 0, 3), st.pass_at_k(5, 3, 3)) == (0.0, 1.0)
    for n, c, k in [(6, 1, 2), (6, 4, 2), (7, 2, 5)]:
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert st.pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(EvaluationError, match="k=5"):
        st.pass_at_k(4, 1, 5)


def test_flips_count_both_ways() -> None:
    now = [True, True, False, False, True]
    before = [True, False, True, False, False]
    assert st.flips(now, before) == st.Flips(5, gained=2, lost=1)
    with pytest.raises(EvaluationError, match="5 answers and 4"):
        st.flips(now, before[:4])


@pytest.mark.parametrize(
    ("gained", "lost", "method", "p"),
    [
        (0, 0, "auto", 1.0),
        (0, 5, "exact", 2 / 32),
        (1, 7, "exact", 2 * (1 + 8) / 256),
        (3, 3, "exact", 1.0),
        (1, 7, "mid-p", (2 * 9 - 8) / 256),
        (5, 15, "chi2", math.erfc(math.sqrt(81 / 20 / 2))),  # (|5 - 15| - 1)^2 / 20 = 4.05
        (600, 500, "auto", math.erfc(math.sqrt(99**2 / 1100 / 2))),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, method: str, p: float) -> None:
    assert st.mcnemar(gained, lost, method) == pytest.approx(p, rel=1e-12)
    assert st.mcnemar(lost, gained, method) == pytest.approx(p, rel=1e-12)


def test_mcnemar_is_scipy_s_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    for gained, lost in [(0, 1), (2, 9), (12, 30), (50, 51), (400, 590)]:
        assert st.mcnemar(gained, lost) == pytest.approx(
            stats.binomtest(gained, gained + lost).pvalue, rel=1e-9
        )
        chi2 = stats.chi2.sf((abs(gained - lost) - 1) ** 2 / (gained + lost), 1)
        assert st.mcnemar(gained, lost, "chi2") == pytest.approx(chi2, rel=1e-9)


def test_bootstrap_of_two_items_has_three_outcomes() -> None:
    # Two items, differences 1 and 0: a draw's mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    assert st.bootstrap_interval([1.0, 0.0], [0.0, 0.0]) == st.Interval(0.5, 0.0, 1.0)
    assert st.bootstrap_interval([1.0, 0.0], [0.0, 0.0], confidence=0.4) == st.Interval(0.5, 0.5, 0.5)
    assert st.bootstrap_interval([3.0] * 9, [2.0] * 9) == st.Interval(1.0, 1.0, 1.0)
    assert st.bootstrap_interval([3.0] * 9, [2.0] * 9, statistic="recovery") == st.Interval(
        150.0, 150.0, 150.0
    )


def test_bootstrap_is_seeded() -> None:
    values = list(np.random.default_rng(3).normal(size=40))
    assert st.bootstrap_interval(values, seed=1) == st.bootstrap_interval(values, seed=1)
    assert st.bootstrap_interval(values, seed=1) != st.bootstrap_interval(values, seed=2)


def test_bootstrap_of_few_items_has_no_interval_of_a_recovery() -> None:
    """Of two items of which the baseline gets one right, a quarter of the draws leave it none."""
    found = st.bootstrap_interval([1.0, 1.0], [1.0, 0.0], statistic="recovery")
    assert (found.value, found.low, found.high) == (200.0, None, None)
    assert st.bootstrap_interval([1.0, 1.0], [1.0, 0.0]).low is not None


def test_bootstrap_agrees_with_normal_theory_and_scipy() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0.3, 1, 200), random.normal(0, 1, 200)
    found = st.bootstrap_interval(list(ours), list(theirs), samples=20_000)
    error = (ours - theirs).std(ddof=1) / math.sqrt(200)
    # 2.5 % quantiles of 20,000 draws scatter by about 0.019 standard errors; 5 of those, and 1/sqrt(200) of skewness
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.15 * error)
    stats = pytest.importorskip("scipy.stats")
    other = stats.bootstrap((ours - theirs,), np.mean, n_resamples=20_000, method="percentile", rng=0)
    assert found.low == pytest.approx(other.confidence_interval.low, abs=0.15 * error)
    assert found.high == pytest.approx(other.confidence_interval.high, abs=0.15 * error)


def test_bootstrap_pairs_items() -> None:
    # Strongly correlated answers: unpaired draws would give an interval 100 times as wide.
    theirs = np.random.default_rng(0).normal(size=100)
    found = st.bootstrap_interval(list(theirs + 0.01), list(theirs))
    assert found.high - found.low < 1e-9


def test_bootstrap_means_over_tasks_of_means_over_parts() -> None:
    groups = ["a", "a", "a", "b/x", "b/y", "b/y"]
    scores = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    # a: 2/3; b: mean of 0 and 1/2; mean of both
    assert st.bootstrap_interval(scores, groups=groups).value == pytest.approx((2 / 3 + 1 / 4) / 2)
    items = [{"task": task, "score": score} for task, score in zip(groups, scores, strict=True)]
    assert st.task_scores(items) == pytest.approx({"a": 200 / 3, "b": 25.0})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([],), "needs items"),
        (([1.0], [1.0, 2.0]), "1 scores, 2 of the baseline"),
        (([1.0], None, "recovery"), "got 'recovery'"),
        (([1.0], [0.0], "recovery"), "must be above zero"),
    ],
)
def test_bootstrap_refuses(arguments: tuple[object, ...], text: str) -> None:
    scores, baseline, statistic = (*arguments, None, None)[:3]
    with pytest.raises(EvaluationError, match=text):
        st.bootstrap_interval(scores, baseline, statistic=statistic)  # type: ignore[arg-type]


def answers(right: list[bool]) -> list[dict[str, object]]:
    return [{"id": str(i), "correct": value} for i, value in enumerate(right)]


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"),
    [
        (0, 0, st.NO_DIFFERENCE),
        (3, 5, st.NO_DIFFERENCE),
        (0, 5, st.NO_DIFFERENCE),
        (1, 12, st.WORSE),
        (9, 0, st.BETTER),
    ],
)
def test_compare_items_gives_the_flips_and_the_verdict(gained: int, lost: int, verdict: str) -> None:
    before = [True] * 30 + [False] * 20
    now = [False] * lost + [True] * (30 - lost) + [True] * gained + [False] * (20 - gained)
    found = st.compare_items(answers(now)[::-1], answers(before))  # by id, not by order
    assert found is not None
    assert (found["n"], found["gained"], found["lost"], found["verdict"]) == (50, gained, lost, verdict)
    assert found["difference"] == pytest.approx((gained - lost) / 50)
    assert found["low"] <= found["difference"] <= found["high"]


def test_compare_items_takes_what_both_have() -> None:
    assert st.compare_items(answers([True]), []) is None
    assert st.compare_items([{"id": 1, "text": "no score"}], [{"id": 1, "text": "none"}]) is None
    scored = [{"id": i, "score": 0.5 + 0.01 * i} for i in range(20)]
    better = [{"id": i, "score": 0.6 + 0.01 * i} for i in range(30)]
    found = st.compare_items(better, scored)
    assert found is not None
    assert (found["n"], found["gained"], found["mcnemar_p"], found["verdict"]) == (20, None, None, st.BETTER)
    assert st.compare_items(scored, scored)["verdict"] == st.NO_DIFFERENCE  # type: ignore[index]


def test_scored_items_flip_by_correct_and_count_by_score() -> None:
    chance = 0.25
    before = [
        {"id": i, "task": "t", "correct": i < 4, "score": st.normalize(float(i < 4), chance)}
        for i in range(8)
    ]
    after = [
        {"id": i, "task": "t", "correct": i < 3, "score": st.normalize(float(i < 3), chance)}
        for i in range(8)
    ]
    mixed = {"id": "share", "task": "t", "score": 0.5}
    found = st.compare_items([*after, mixed], [*before, mixed])
    assert found is not None
    assert (found["n"], found["gained"], found["lost"]) == (9, 0, 1)
    assert found["difference"] == pytest.approx(-(1 / 0.75) / 9)
    assert st.task_scores(after)["t"] == pytest.approx(100 * st.normalize(3 / 8, chance))
