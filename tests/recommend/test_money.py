# SPDX-License-Identifier: Apache-2.0
"""Prices and the study's formulas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pennyweight import money
from pennyweight.errors import MeasurementError


@pytest.mark.parametrize(
    ("gpu", "gpus", "price"),
    [
        ("a6000", 1, 0.80), ("A6000", 4, 3.20), ("h100", 1, 3.29), ("h100", 2, 6.38), ("h100", 8, 23.92),
        ("a100", 1, 1.79), ("a100", 2, 3.58), ("a100", 4, 7.16), ("a100", 8, 14.32),
        ("a100", 16, 28.64), ("h100", 16, 47.84), ("h100", 12, 36.28), ("h100", 3, 9.27), ("a6000", 8, 6.40),
    ],
)  # fmt: skip
def test_price_of_machines(gpu: str, gpus: int, price: float) -> None:
    """Printed ones as printed; fewer than a machine in proportion, more by as many machines as are needed."""
    assert money.study_prices().per_hour(gpu, gpus) == pytest.approx(price, abs=1e-9)


def test_study_prices_say_whose_and_when() -> None:
    assert str(money.study_prices()) == "Lambda Labs on demand (the study's Table 9), 2024-10-28"


def test_formulas_on_cells_of_the_study() -> None:
    """8B on one A6000: 24.5 s of code completion give 183 queries a dollar; 1.5 a second give 6.8 k."""
    assert money.queries_per_dollar_sync(24.5, 0.80) == pytest.approx(183, abs=1)
    assert money.queries_per_dollar_async(1.5, 0.80) == pytest.approx(6750)
    assert money.cost_per_1k_queries(250) == 4
    assert money.cost_reduction([2.0, 3.0], [1.0, 1.0]) == 2.5
    assert money.speedup([1.0, 2.0], [2.0, 3.0]) == 1.75


def test_flat_price_is_per_gpu() -> None:
    assert money.flat_price(1.5).per_hour("anything", 4) == 6


def test_file_of_prices_is_read(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(
        json.dumps(
            {"schema": 1, "source": "mine", "date": "2026-01-31", "usd_per_hour": {"H100": {"1": 2, "8": 12}}}
        )
    )
    prices = money.read_prices(file)
    assert (prices.per_hour("h100"), prices.per_hour("h100", 4), str(prices)) == (2, 6, "mine, 2026-01-31")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema": 1, "usd_per', "is truncated or no JSON"),
        ("[]", "has schema None, this pennyweight reads 1"),
        ('{"schema": 2}', "has schema 2, this pennyweight reads 1"),
        ('{"schema": 1, "usd_per_hour": {}}', "must have at least one GPU"),
        ('{"schema": 1, "usd_per_hour": {"h100": 3}}', "h100 must have prices by number of GPUs"),
        ('{"schema": 1, "usd_per_hour": {"h100": {"0": 3}}}', "a number of GPUs is 1 or more; got '0'"),
        ('{"schema": 1, "usd_per_hour": {"h100": {"1": 0}}}', "price of 1 x h100 must be a number above 0"),
        ('{"schema": 1, "usd_per_hour": {"h100": {"1": -2}}}', "got -2"),
        ('{"schema": 1, "usd_per_hour": {"h100": {"1": "cheap"}}}', "got 'cheap'"),
        ('{"schema": 1, "date": "soon", "usd_per_hour": {"h100": {"1": 1}}}', "date must be year-month-day"),
    ],
)
def test_bad_file_of_prices_is_refused(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(MeasurementError) as caught:
        money.read_prices(file)
    assert says in str(caught.value) and str(file) in str(caught.value)


def test_missing_file_and_unknown_gpu_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot be read: No such file"):
        money.read_prices(tmp_path / "none.json")
    with pytest.raises(MeasurementError, match=r"no price of h10 .* it has h100.*: give one with --price"):
        money.study_prices().per_hour("h10")
    with pytest.raises(MeasurementError, match="number of GPUs must be a whole number, 1 or more; got 0"):
        money.study_prices().per_hour("h100", 0)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "3", None, True])
def test_number_that_is_none_is_refused(value: object) -> None:
    for call in (
        lambda: money.flat_price(value),  # type: ignore[arg-type]
        lambda: money.queries_per_dollar_sync(value, 1.0),  # type: ignore[arg-type]
        lambda: money.queries_per_dollar_async(1.0, value),  # type: ignore[arg-type]
        lambda: money.cost_per_1k_queries(value),  # type: ignore[arg-type]
        lambda: money.cost_reduction([1.0], [value]),  # type: ignore[list-item]
    ):
        with pytest.raises(MeasurementError, match="must be a number above 0"):
            call()


def test_ratios_need_the_same_use_cases() -> None:
    with pytest.raises(MeasurementError, match="over the same use cases; got 2 and 1"):
        money.speedup([1.0], [1.0, 2.0])
