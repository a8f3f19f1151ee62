# SPDX-License-Identifier: Apache-2.0
"""Whole models: what a run is held against, and that its rows leave those of other benchmarks alone."""

from __future__ import annotations

import json
from pathlib import Path

import bench_model
import results


def row(side: str, form: str, prefill: float, decode: float) -> results.Row:
    return {"side": side, "format": form, "prefill_tok_s": prefill, "decode_tok_s": decode}


RUN = [
    row("torch", "bf16", 10, 10),
    row("llama.cpp", "bf16", 50, 16),
    row("pennyweight", "W8A8-FP", 9, 24),
    row("llama.cpp", "q8_0", 30, 25),
]


def test_each_bar_is_held_against_its_own_side() -> None:
    words = [line.split(maxsplit=1)[0] for line in bench_model.verdicts(RUN, dots=True)]
    assert words == ["missed", "met", "missed", "missed"]  # 1.5 of 1.55, 2.4 of 1.7, 0.96 of 1, 0.9 of 0.95
    last = bench_model.verdicts(RUN, dots=False)[-1]
    assert last.startswith("not measured") and "0.90 x; the bar assumes AVX512-BF16" in last


def test_saved_models_take_the_place_of_older_ones_only(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    about = {"date": "2026-01-01", "commit": "abc", "torch": "2"}
    linear = {"op": "linear", "impl": "avx2", "M": 1, "N": 2, "K": 3}
    results.save(path, about, {"read": 1.0}, [linear], keep=False)
    for speed in (1, 2):
        results.save_models(path, about, [row("torch", "bf16", speed, speed)], keep=True)
    results.save(path, about, {"read": 2.0}, [], keep=True)
    saved = json.loads(path.read_text())
    assert saved["limits"] == {"read": 2.0} and [r["op"] for r in saved["rows"]] == ["linear"]
    assert saved["models"] == [row("torch", "bf16", 2, 2) | about]
