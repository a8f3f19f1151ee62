# SPDX-License-Identifier: Apache-2.0
"""Suite `reasoning`: AIME24, MATH-500 and GPQA-Diamond, as the mean over samples of each question.

    <task>          pass@1 in percent: the share of right samples, mean over questions
    <task>_spread   standard deviation, in points, of the score that each sample alone would have given
    average         of the tasks

The study: LightEval, 20 samples at temperature 0.6, top-p 0.95; how many tokens an answer may have is not published,
32768 is its authors' later setting. The questions are worded as LightEval words them (aime24, math_500, gpqa:diamond;
MIT licence). Only what follows the last "</think>" is read. Answers in mathematics are extracted and compared
by math-verify; those of GPQA are letters, its four choices shuffled by `options.seed` and the question.
"""

from __future__ import annotations

import random
import re
import statistics
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import needs
from pennyweight.evaluate.answers import chosen, item_seed, read_rows, sample
from pennyweight.evaluate.needs import Need
from pennyweight.evaluate.suites import Job, SuiteResult

SAMPLES, TEMPERATURE, TOP_P, MAX_NEW_TOKENS = 20, 0.6, 0.95, 32768
LETTERS = "ABCD"
#: Seconds that one answer's mathematics may take.
SECONDS = 5
MATH_QUESTION = (
    "Solve the following math problem efficiently and clearly.  The last line of your response should be of the "
    "following format: 'Therefore, the final answer is: $\\boxed{{ANSWER}}$. I hope it is correct' (without quotes) "
    "where ANSWER is just the final number or expression that solves the problem. Think step by step before "
    "answering.\n\n{0}"
)
CHOICE_QUESTION = (
    "Answer the following multiple choice question. The last line of your response should be of the following format: "
    "'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n{0}\n\n"
    "A) {1}\nB) {2}\nC) {3}\nD) {4}"
)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One question: its text, the right answer, and how to read a given one (text → (answer, right))."""

    identity: str
    text: str
    gold: str
    grade: Callable[[str], tuple[str | None, bool]]


@dataclass(frozen=True)
class Task:
    """One dataset and how its rows are read: (row, its number, seed) → question."""

    need: Need
    split: str
    key: str  # the column that names a row, where it is there
    read: Callable[[Row, int, int], Question]


def math_question(task: str, row: Row, number: int, seed: int) -> Question:
    """Return a row with problem and answer as a question."""
    identity, gold = f"{task}/{row.get('unique_id') or row.get('id', number)}", str(row["answer"])
    if not parse_math(f"${gold}$"):
        raise EvaluationError(
            f"dataset {task!r}: the answer of {identity}, {gold!r}, cannot be read as mathematics"
        )
    return Question(identity, MATH_QUESTION.format(row["problem"]), gold, lambda text: grade_math(text, gold))


def choice_question(task: str, row: Row, number: int, seed: int) -> Question:
    """Return a row of GPQA as a question with shuffled choices."""
    identity = f"{task}/{row.get('Record ID') or number}"
    right = str(row["Correct Answer"]).strip()
    choices = [right, *(str(row[f"Incorrect Answer {i}"]).strip() for i in (1, 2, 3))]
    order = list(range(4))
    random.Random(item_seed(seed, identity)).shuffle(order)
    gold = LETTERS[order.index(0)]
    text = CHOICE_QUESTION.format(str(row["Question"]).strip(), *(choices[i] for i in order))
    return Question(identity, text, gold, lambda answer: grade_choice(answer, gold))


TASKS = {
    "aime24": Task(needs.AIME24, "train", "id", lambda *row: math_question("aime24", *row)),
    "math_500": Task(needs.MATH_500, "test", "unique_id", lambda *row: math_question("math_500", *row)),
    "gpqa_diamond": Task(
        needs.GPQA_DIAMOND, "train", "Record ID", lambda *row: choice_question("gpqa_diamond", *row)
    ),
}


def run(job: Job) -> SuiteResult:
    """Sample answers to every question and count the right ones."""
    options = job.options
    samples = options.samples or SAMPLES
    questions = _questions(job)
    items = []
    for identity, (task, question) in questions.items():
        kept = job.store.get(identity)
        if kept is None:
            kept = job.store.put(identity, _item(job, task, question, samples))
        items.append(kept)
        job.progress(len(items), len(questions))
    notes = [f"{samples} samples per question at temperature {TEMPERATURE}, top-p {TOP_P}"]
    cut = sum(item["cut"] for item in items)
    if cut:
        most = options.max_new_tokens or MAX_NEW_TOKENS
        notes.append(f"{cut} of {samples * len(items)} answers were cut at {most} tokens")
    return SuiteResult(*summarize(items), items, notes)


def summarize(items: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the metrics named in the head of this file, and each task's score."""
    spread: dict[str, float] = {}
    tasks: dict[str, float] = {}
    for task in dict.fromkeys(item["task"] for item in items):
        rights = [item["right"] for item in items if item["task"] == task]
        by_sample = [100 * sum(one) / len(rights) for one in zip(*rights, strict=True)]
        tasks[task] = sum(by_sample) / len(by_sample)
        spread[f"{task}_spread"] = statistics.stdev(by_sample) if len(by_sample) > 1 else 0.0
    average = sum(tasks.values()) / len(tasks)
    return {"average": average, **tasks, **spread}, tasks


def grade_math(text: str, gold: str) -> tuple[str | None, bool]:
    """Return the answer that math-verify finds in a text, and whether it equals the right one, given as LaTeX."""
    from math_verify import verify

    found = parse_math(final_part(text))
    right = bool(found) and verify(parse_math(f"${gold}$"), found, timeout_seconds=_seconds())
    return (str(found[-1]) if found else None), right


def parse_math(text: str) -> list[Any]:
    """Return what math-verify reads from a text, boxed LaTeX before other LaTeX and numbers; empty where nothing is."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    kinds = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    found: list[Any] = parse(text, kinds, parsing_timeout=_seconds())
    return found


def _seconds() -> int | None:
    """Return math-verify's limit: it times itself by a signal, which only the main thread gets."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None


def grade_choice(text: str, gold: str) -> tuple[str | None, bool]:
    """Return the letter that a text ends up with, and whether it is the right one."""
    letter = extract_letter(final_part(text))
    return letter, letter == gold


def extract_letter(text: str) -> str | None:
    """Return the last "Answer: X" or \\boxed{X} of a text, X one of A to D; None where there is none."""
    start = r"(?i:answer(?:\s+is)?)\s*:?[\s*_$(]*(?:\\boxed\{)?|\\boxed\{"
    found: list[str] = re.findall(rf"(?:{start})(?:\\text\{{)?\(?([A-D])\b", text)
    return found[-1] if found else None


def final_part(text: str) -> str:
    """Return what follows the last thought."""
    return text.rpartition("</think>")[2]


def _questions(job: Job) -> dict[str, tuple[str, Question]]:
    """Return the questions of all tasks by their identity, each with its task's name."""
    questions: dict[str, tuple[str, Question]] = {}
    for name in chosen("reasoning", job, TASKS):
        task = TASKS[name]
        for number, row in enumerate(read_rows(job, task.need, task.split, task.key), 1):
            question = task.read(row, number, job.options.seed)
            questions[question.identity] = (name, question)
    return questions


def _item(job: Job, task: str, question: Question, samples: int) -> dict[str, Any]:
    answers = sample(
        job, question.identity, question.text, samples=samples, temperature=TEMPERATURE, top_p=TOP_P,
        max_new_tokens=job.options.max_new_tokens or MAX_NEW_TOKENS,
    )  # fmt: skip
    graded = [question.grade(answer.text) for answer in answers]
    right = [one for _, one in graded]
    return {
        "id": question.identity, "task": task, "score": sum(right) / samples, "samples": samples, "right": right,
        "gold": question.gold, "answers": [given for given, _ in graded], "model_text": answers[0].text,
        "cut": sum(answer.finish == "length" for answer in answers),
    }  # fmt: skip
