# SPDX-License-Identifier: Apache-2.0
"""Import is quick, silent and light; public names resolve, and submodules do not hide functions."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pennyweight as pw

HEAVY = ("transformers", "typer", "rich", "tqdm", "safetensors", "pennyweight.ops", "torch._dynamo")
MEASURE = f"""
import sys, time, torch
start, before = time.perf_counter(), set(sys.modules)
import pennyweight
print(time.perf_counter() - start)
print(*[name for name in {HEAVY!r} if name in set(sys.modules) - before])
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )


def test_import_costs_under_50_ms_beyond_torch_and_loads_nothing_heavy() -> None:
    times = []
    for _ in range(3):  # the least of three: what other programs take is not ours
        seconds, heavy = run(MEASURE).stdout.splitlines()
        assert heavy == ""
        times.append(float(seconds))
        if times[-1] < 0.05:
            break
    assert min(times) < 0.05


def test_import_is_silent() -> None:
    done = run("import pennyweight, pennyweight.ops, pennyweight.layers")
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("name", pw.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(pw, name) is not None
    assert name in dir(pw)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pw.nothing  # noqa: B018


def test_submodules_do_not_hide_functions() -> None:
    done = run(
        "import pennyweight.explain, pennyweight as pw; print(callable(pw.explain), callable(pw.quantize))"
    )
    assert done.stdout.split() == ["True", "True"]
