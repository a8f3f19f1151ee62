# SPDX-License-Identifier: Apache-2.0
"""A run beside the study's row."""

from __future__ import annotations

import json

import pytest

from pennyweight import study
from pennyweight.study.compare import MEASURED


def test_same_model_by_name_and_recovery_by_hand() -> None:
    run = study.compare(
        ["out/Meta-Llama-3.1-8B-Instruct-quantized.w4a16"], "W4A16-INT", "openllm-v1",
        {"average": 73.0, "mmlu": 66.0}, {"average": 74.0, "mmlu": 68.0},
    )  # fmt: skip
    assert run.same_model and run.model == "Llama-3.1-8B-Instruct" and not run.notes
    average, mmlu = run.lines[0], run.lines[1]
    assert average.study and average.study.text == "73.11"
    assert mmlu.study_baseline and mmlu.study_baseline.text == "68.3"
    assert mmlu.recovery == pytest.approx(100 * 66 / 68)
    assert mmlu.study_recovery == pytest.approx(100 * 66.9 / 68.3)
    assert all(line.run is None for line in run.lines[2:])
    assert "66.00" in str(run) and "97.06 %" in str(run) and "97.95 %" in str(run)


@pytest.mark.parametrize(
    ("parameters", "model"),
    [(4_000_000, "8B"), (1_200_000_000, "8B"), (32_000_000_000, "70B"), (671_000_000_000, "405B")],
)
def test_other_model_is_put_beside_the_nearest_and_said_so(parameters: int, model: str) -> None:
    run = study.compare(["mine"], "W8A8-FP", "openllm-v2", {"average": 20.0}, parameters=parameters)
    assert not run.same_model and run.model == f"Llama-3.1-{model}-Instruct"
    assert "Another model" in run.notes[0]


def test_reasoning_finds_the_distilled_model() -> None:
    run = study.compare(["x", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"], None, "reasoning", {})
    assert run.same_model and run.scheme == "BF16"
    assert [line.study and line.study.text for line in run.lines] == ["50.0", "30.1", "84.7", "35.4"]


def test_erratum_of_the_row_is_told() -> None:
    run = study.compare(["Llama-3.1-70B-Instruct"], "W4A16-INT", "arena-hard", {"average": 57.0})
    assert not run.notes  # Table 7 is the one that holds
    assert any(
        "77.8" in note for note in study.compare(["Llama-3.1-8B-Instruct"], None, "openllm-v2", {}).notes
    )


def test_code_takes_two_tables() -> None:
    run = study.compare(["Llama-3.1-70B-Instruct"], "W4A16-INT", "code", {"humaneval": 80.0})
    assert [line.study and line.study.text for line in run.lines] == ["80.5", "74.2", "81.9"]
    fp8 = study.compare(["Llama-3.1-70B-Instruct"], "W8A8-FP", "code", {})
    assert fp8.lines[2].study is None and fp8.notes == (
        "Table 1 has no row of Llama-3.1-70B-Instruct, W8A8-FP.",
    )


@pytest.mark.parametrize(
    ("suite", "names", "text"),
    [
        ("quick", ["Llama-3.1-8B-Instruct"], "The study did not measure what quick measures."),
        ("ruler", ["mine"], "None of mine names a model of the study, and the run's size is unknown."),
    ],
)
def test_nothing_to_compare_says_why(suite: str, names: list[str], text: str) -> None:
    run = study.compare(names, "W8A8-FP", suite, {})
    assert run.model is None and not run.lines
    assert run.notes[0].startswith(text)


@pytest.mark.parametrize("suite", MEASURED)
def test_comparison_shows_itself(suite: str) -> None:
    run = study.compare(["Llama-3.1-8B-Instruct"], "W4A16-INT", suite, {}, parameters=8_000_000_000)
    assert run.lines and run._repr_html_().count("<tr>") == 1 + len(run.lines)
    assert json.loads(json.dumps(run.to_dict()))["suite"] == suite


def test_result_of_evaluate_is_put_beside_the_study() -> None:
    """Suites and names as a model's JSON has them; what a baseline is called tells the model."""
    base = {"name": "base", "source": "meta-llama/Llama-3.1-8B-Instruct", "scheme": "bfloat16"}
    tasks = {"metrics": {"average": 73.0}, "tasks": {"mmlu": 66.0}}
    arena = {"metrics": {"win_rate": 24.5}, "tasks": {}}
    run = {
        "model": {"name": "w4", "scheme": "W4A16-INT"},
        "baseline": base,
        "suites": {"openllm-v1": tasks, "arena-hard": arena, "quick": {"metrics": {"kl": 0.1}, "tasks": {}}},
    }
    whole = {
        "model": base,
        "baseline": None,
        "suites": {"openllm-v1": {"metrics": {"average": 74.0}, "tasks": {}}},
    }
    v1, judged, quick = study.beside(run, whole)
    assert v1.same_model and (v1.lines[0].run, v1.lines[0].baseline, v1.lines[1].run) == (73.0, 74.0, 66.0)
    assert judged.lines[0].run == 24.5 and judged.lines[0].study and judged.lines[0].study.text == "24.0"
    assert quick.model is None
    assert study.beside(whole)[0].scheme == "BF16"
