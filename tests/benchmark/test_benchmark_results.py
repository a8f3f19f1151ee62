# SPDX-License-Identifier: Apache-2.0
"""The file of a benchmark: it comes back as it was written, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import result, row

from pennyweight.benchmark import results
from pennyweight.errors import MeasurementError


def test_results_come_back(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "run.json"
    results.write(path, result())
    assert results.read(path) == result()
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def changed(**values: Any) -> dict[str, Any]:
    return result(rows=[row("BF16", "sync", 2.0, **values)])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is truncated or no JSON"),
        ("[1]", "is no result of pennyweight benchmark"),
        (json.dumps(result()).replace('"schema": 1', '"schema": 9'), "has schema 9, this pennyweight reads 1"),
        (json.dumps(result()).replace('"latency_s": 2.0', '"latency_s": 1.9', 1), "was changed after it was written"),
        (json.dumps(result()).replace('"seconds": 12.5', '"seconds": NaN'), "NaN is no measurement"),
        (json.dumps(changed(latency_s="2")), "rows[0].latency_s is '2'"),
        (json.dumps(changed(latency_s=0)), "rows[0].latency_s is 0, it must be above 0"),
        (json.dumps(changed(queries_per_dollar=-1.0)), "rows[0].queries_per_dollar is -1.0"),
        (json.dumps(changed(repeats=True)), "rows[0].repeats is True"),
        (json.dumps(changed(throughput_qps=1.0)), "rows[0].mode is 'sync' with throughput_qps 1.0"),
        (json.dumps(changed(mode="fast")), "rows[0].mode is 'fast'"),
        (json.dumps(result(machine={"name": "x"})), "machine.gpu is missing"),
        (json.dumps(result(targets=["x"])), "targets[0] must be an object"),
    ],
)  # fmt: skip
def test_results_refuse_what_is_none(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(MeasurementError) as refused:
        results.read(path)
    assert str(refused.value).startswith(f"{path}: ") and says in str(refused.value)


def test_results_with_nan_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="holds NaN or Inf"):
        results.write(tmp_path / "run.json", {**result(), "seconds": float("nan")})
    assert not list(tmp_path.iterdir())
