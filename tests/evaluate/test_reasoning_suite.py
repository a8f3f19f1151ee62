# SPDX-License-Identifier: Apache-2.0
"""The suite `reasoning`: answers read by math-verify and by letter, pass@1 and its spread."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from generation_cases import DEMO, Scripted, job, write_rows

import pennyweight as pw
from pennyweight.errors import EvaluationError
from pennyweight.evaluate import reasoning

pytest.importorskip("math_verify")

AIME = [
    {"id": 60, "problem": "What is 2 + 2?", "answer": "4"},
    {"id": 61, "problem": "What is 100 + 4?", "answer": "104"},
]
MATH = {
    "problem": "Half of 1?", "answer": "\\frac{1}{2}", "subject": "Prealgebra", "level": 1, "unique_id": "test/1.json",
}  # fmt: skip
GPQA = {
    "Question": "Which is the lightest?", "Correct Answer": "hydrogen\n", "Incorrect Answer 1": "helium",
    "Incorrect Answer 2": "lithium", "Incorrect Answer 3": "beryllium", "Record ID": "rec1",
}  # fmt: skip


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    write_rows(root / "aime24/train.jsonl", AIME)
    write_rows(root / "math_500/test.jsonl", [MATH])
    write_rows(root / "gpqa_diamond/train.jsonl", [GPQA])
    return root


def answer(text: str, sample: int) -> str:
    if "2 + 2" in text:
        return "Therefore, the final answer is: $\\boxed{4}$." if sample < 2 else "$\\boxed{5}$"
    if "100 + 4" in text:
        return "<think>\\boxed{7}</think> It is 104." if sample == 0 else "I do not know."
    if "Half" in text:
        return "The final answer is: $\\boxed{0.5}$"
    letter = next(line[0] for line in text.split("\n") if line.endswith(") hydrogen"))
    return f"Hmm.\n**Answer: {letter}**"


def test_reasoning_by_hand(datasets: Path) -> None:
    target = Scripted(answer)
    found = reasoning.run(job(target, datasets=datasets, samples=4))
    # aime24: samples 1 to 4 are right in 2, 1, 0, 0 of 2 questions
    assert found.tasks == {"aime24": pytest.approx(37.5), "math_500": 100.0, "gpqa_diamond": 100.0}
    assert found.metrics["aime24_spread"] == pytest.approx(statistics.stdev([100.0, 50.0, 0.0, 0.0]))
    assert found.metrics["math_500_spread"] == 0.0
    assert found.metrics["average"] == pytest.approx(237.5 / 3)
    assert [(item["id"], item["score"]) for item in found.items] == [
        ("aime24/60", 0.5),
        ("aime24/61", 0.25),
        ("math_500/test/1.json", 1.0),
        ("gpqa_diamond/rec1", 1.0),
    ]
    assert found.items[1]["answers"] == ["104", None, None, None]
    assert {(one["n"], one["temperature"], one["top_p"]) for one in target.asked} == {(4, 0.6, 0.95)}
    assert len({one["seed"] for one in target.asked}) == 4


def test_reasoning_asks_as_the_study(datasets: Path) -> None:
    target = Scripted(answer)
    found = reasoning.run(job(target, datasets=datasets, tasks=("aime24",), limit=1))
    assert (target.asked[0]["n"], target.asked[0]["max_new_tokens"]) == (20, 32768)
    assert len(found.items) == 1


def test_gpqa_shuffles_by_seed_and_question() -> None:
    texts = {seed: reasoning.choice_question("gpqa", GPQA, 1, seed) for seed in range(12)}
    assert len({question.gold for question in texts.values()}) == 4
    assert texts[3].text == reasoning.choice_question("gpqa", GPQA, 1, 3).text
    for question in texts.values():
        assert f"\n{question.gold}) hydrogen" in question.text


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: B", "B"),
        ("**Answer: C**", "C"),
        ("The answer is (D).", "D"),
        ("so \\boxed{A}", "A"),
        ("Answer: $\\boxed{\\text{B}}$", "B"),
        ("Answer: A at first. Answer: D", "D"),
        ("The answer is about a thing", None),
        ("Answer: Because", None),
        ("", None),
    ],
)
def test_letter_is_read(text: str, letter: str | None) -> None:
    assert reasoning.extract_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("$\\boxed{\\frac{2}{4}}$", "\\frac{1}{2}", True),
        ("$\\boxed{\\left(3, \\frac{\\pi}{2}\\right)}$", "\\left( 3, \\frac{\\pi}{2} \\right)", True),
        ("so x = 5, and \\boxed{6}", "5", False),
        ("\\boxed{033}", "33", True),
        ("$\\boxed{\\text{Evelyn}}$", "\\text{Evelyn}", True),
        ("nothing", "5", False),
        ("\\boxed{", "5", False),
        ("<think>\\boxed{5}</think>\\boxed{6}", "5", False),
    ],
)
def test_mathematics_is_compared(text: str, gold: str, right: bool) -> None:
    assert reasoning.grade_math(text, gold)[1] is right


def test_reasoning_runs_on_the_demo_model(datasets: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"datasets": datasets, "samples": 2, "max_new_tokens": 6, "progress": False}
    first = pw.evaluate(DEMO, baseline=DEMO, suites="reasoning", out=tmp_path, **options)
    assert first.models[0]["suites"]["reasoning"]["metrics"]["average"] is not None
    again = pw.evaluate(DEMO, suites="reasoning", **options)
    items = again.models[0]["suites"]["reasoning"]["items"]
    assert items == first.models[0]["suites"]["reasoning"]["items"]  # sampling repeats
    assert any("were cut at 6 tokens" in note for note in again.models[0]["suites"]["reasoning"]["notes"])


def test_reasoning_refuses(datasets: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="'aime' is no task; did you mean aime24"):
        reasoning.run(job(Scripted(answer), datasets=datasets, tasks=("aime",)))
    write_rows(tmp_path / "aime24/train.jsonl", [{**AIME[0], "answer": ""}])
    with pytest.raises(EvaluationError, match=r"aime24/60.*cannot be read as mathematics"):
        reasoning.run(job(Scripted(answer), datasets=tmp_path, tasks=("aime24",)))
