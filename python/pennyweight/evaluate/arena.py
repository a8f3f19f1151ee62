# SPDX-License-Identifier: Apache-2.0
"""Suite `arena-hard`: a judge compares a model's answers with those of a baseline, as Arena-Hard-Auto v0.1 does.

    win_rate    percent: mean of the scores of all battles, 50 where both are alike; the mean of two runs
    low, high   95 % interval: questions drawn anew, each with all its battles, since those hang together
    run1, run2  the win rate of each run of the judge on the same answers

Each question is judged twice per run, with the model's answer second and then first. A verdict counts as battles won:

    [[B>>A]] 3 × 1    [[B>A]] 1    [[A=B]] ½    [[A>B]] 0    [[A>>B]] 3 × 0       where B is the model

which is the published weighting; with two players the Bradley-Terry fit that is published beside it gives the same
rate. Greedy answers of at most 4096 tokens, the judge at temperature 0; its words are data/arena_hard.json.

The model is held against the answers in baseline_answer.jsonl of the dataset, if it is there (as in the study, where
baseline and models alike are held against gpt-4-0314's); else against the answers of the run's own baseline.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import datasets
from pennyweight.evaluate.answers import arena_questions, greedy, item_seed
from pennyweight.evaluate.needs import ARENA_HARD
from pennyweight.evaluate.server import Server
from pennyweight.evaluate.suites import Job, SuiteResult
from pennyweight.evaluate.targets import Messages, Target

MAX_NEW_TOKENS = 4096
RUNS = 2
DRAWS = 2000
ANSWERS = "baseline_answer"
#: Labels that say the same with the sides named in the other order.
MIRRORED = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B"}
OTHER_SPELLINGS = {"B<<A": "A>>B", "B<A": "A>B", "B=A": "A=B", "A<B": "B>A", "A<<B": "B>>A"}
Game = tuple[str, str, str]  # question, answer A, answer B


@dataclass(frozen=True)
class Opponent:
    """Who the model is held against: its name, its answers by question, and whether they come with the dataset."""

    name: str
    answers: dict[str, str]
    published: bool


def run(job: Job) -> SuiteResult:
    """Answer the questions and let the judge compare."""
    questions = arena_questions(job)
    most = job.options.max_new_tokens or MAX_NEW_TOKENS
    judge = _judge(job)  # before hours of answers, not after
    opponent = _opponent(job, questions)
    ours = greedy(job, job.target, questions, role="model", max_new_tokens=most)
    if opponent is None:
        items = [{"id": name, "prompt": questions[name], "model_text": text} for name, text in ours.items()]
        notes = ["the models of this run are held against these answers: nothing is judged here"]
        return SuiteResult({"win_rate": None, "questions": len(questions)}, items=items, notes=notes)
    items = []
    for name, question in questions.items():
        kept = job.store.get(name)
        if kept is None:
            kept = job.store.put(name, _item(job, judge, name, question, ours[name], opponent.answers[name]))
        items.append(kept)
        job.progress(len(items), len(questions))
    metrics, missing = summarize(items, job.options.seed)
    notes = [f"judged by {judge.name} against {opponent.name}"]
    if missing:
        notes.append(f"{missing} of {2 * RUNS * len(items)} judgments had no verdict and do not count")
    tasks = {"arena-hard": metrics["win_rate"]} if opponent.published else {}
    return SuiteResult(metrics, tasks, items, notes)


def summarize(items: Sequence[dict[str, Any]], seed: int) -> tuple[dict[str, Any], int]:
    """Return the metrics named in the head of this file, and how many judgments had no verdict."""
    battles = [[[s for label in one for s in scores(label)] for one in item["verdicts"]] for item in items]
    sums = np.array([[sum(one) for one in item] for item in battles], dtype=np.float64)  # (questions, runs)
    counts = np.array([[len(one) for one in item] for item in battles], dtype=np.float64)
    missing = sum(label is None for item in items for one in item["verdicts"] for label in one)
    if not counts.sum(0).all():
        raise EvaluationError(
            f"arena-hard: {missing} judgments and not one verdict in some run; see whether the judge follows its prompt"
        )
    rates = 100 * sums.sum(0) / counts.sum(0)
    drawn = np.random.default_rng(seed).integers(len(items), size=(DRAWS, len(items)))
    totals = counts[drawn].sum(1)  # (draws, runs)
    means = 100 * (sums[drawn].sum(1) / np.maximum(totals, 1)).mean(1)
    low, high = np.quantile(means[totals.all(1)], [0.025, 0.975])
    runs = {f"run{i + 1}": float(rate) for i, rate in enumerate(rates)}
    found = {"win_rate": float(rates.mean()), "low": float(low), "high": float(high), **runs}
    return found | {"questions": len(items)}, missing


def scores(label: str | None) -> list[float]:
    """Return the battles of a verdict in which B is the model: 1 won, 0 lost; none without a verdict."""
    if label is None:
        return []
    won = {"B": 1.0, "A": 0.0, "=": 0.5}["=" if "=" in label else label[0]]
    return [won] * int(_words()["weights"][label])


def verdict(text: str) -> str | None:
    """Return the label that a judgment gives; None where it gives none, or several that differ."""
    found = {OTHER_SPELLINGS.get(label, label) for label in re.findall(_words()["pattern"], text)}
    return found.pop() if len(found) == 1 and found <= set(MIRRORED) else None


def _item(job: Job, judge: Target, name: str, question: str, ours: str, theirs: str) -> dict[str, Any]:
    games: list[Game] = [(question, theirs, ours), (question, ours, theirs)]
    judged = _judge_games(judge, games * RUNS, item_seed(job.options.seed, name))
    labels = [one if i % 2 == 0 or one is None else MIRRORED[one] for i, (one, _) in enumerate(judged)]
    verdicts = [labels[2 * i : 2 * i + 2] for i in range(RUNS)]  # B is the model in all
    battles = [s for label in labels for s in scores(label)]
    return {
        "id": name, "score": sum(battles) / len(battles) if battles else None, "verdicts": verdicts,
        "prompt": question, "baseline_text": theirs, "model_text": ours, "judgments": [text for _, text in judged],
    }  # fmt: skip


def _judge_games(judge: Target, games: Sequence[Game], seed: int) -> list[tuple[str | None, str]]:
    """Return the verdict and the words of the judge on each game; asked to go on once where it gives none."""
    words = _words()
    talks: list[Messages] = [
        [
            {"role": "system", "content": words["system"]},
            {"role": "user", "content": _fill(words["template"], question=q, answer_a=a, answer_b=b)},
        ]
        for q, a, b in games
    ]
    texts = [""] * len(games)
    for attempt in range(words["attempts"]):
        open_games = [i for i, text in enumerate(texts) if not re.search(words["pattern"], text)]
        if not open_games:
            break
        answers = judge.generate(
            [talks[i] for i in open_games], max_new_tokens=words["max_tokens"], temperature=words["temperature"],
            seed=seed + attempt * len(games),
        )  # fmt: skip
        for i, answer in zip(open_games, answers, strict=True):
            texts[i] += "\n" + answer[0].text
            again = {"role": "user", "content": words["again"]}
            talks[i] = [*talks[i], {"role": "assistant", "content": answer[0].text}, again]
    return [(verdict(text), text.strip()) for text in texts]


def _fill(template: str, **values: str) -> str:
    """Fill in all places at once, so that braces in an answer stay what they are."""
    return re.sub(r"\{(\w+)\}", lambda place: values[place[1]], template)


def _opponent(job: Job, questions: dict[str, str]) -> Opponent | None:
    """Return who the model is held against; None: this is the run's baseline itself."""
    folder = datasets.dataset_folder(job.options.datasets, ARENA_HARD)
    if any(folder.glob(f"{ANSWERS}.*")):
        return _published(job, questions)
    if job.baseline is None:
        return None
    most = job.options.max_new_tokens or MAX_NEW_TOKENS
    answers = greedy(job, job.baseline, questions, role="baseline", max_new_tokens=most)
    return Opponent(job.baseline.name, answers, False)


def _published(job: Job, questions: dict[str, str]) -> Opponent:
    """Read a file of answers in either of Arena-Hard's layouts."""
    answers: dict[str, str] = {}
    name = "the published answers"
    for number, row in enumerate(datasets.read(job.options.datasets, ARENA_HARD, None, ANSWERS), 1):
        try:
            said = row["choices"][0]["turns"][0] if "choices" in row else row["messages"][-1]
            text = said["content"]
            answers[row.get("question_id") or row["uid"]] = str(
                text["answer"] if isinstance(text, dict) else text
            )
        except (KeyError, IndexError, TypeError):
            raise EvaluationError(
                f"dataset 'arena-hard': line {number} of {ANSWERS} needs question_id and choices, or uid and messages; "
                f"it has {', '.join(row)}"
            ) from None
        name = str(row.get("model_id") or row.get("model") or name)
    missing = [one for one in questions if one not in answers]
    if missing:
        raise EvaluationError(
            f"dataset 'arena-hard': {ANSWERS} has no answer to {len(missing)} of {len(questions)} questions, first "
            f"{missing[0]}"
        )
    return Opponent(name, answers, True)


def _judge(job: Job) -> Target:
    if job.options.judge_url is None:
        raise EvaluationError(
            "arena-hard: needs a judge; give the URL of an OpenAI-compatible server, --judge URL, and --judge-model "
            "NAME where it serves several"
        )
    model = job.options.judge_model
    return Server(job.options.judge_url + (f"#{model}" if model else ""))


@functools.cache
def _words() -> dict[str, Any]:
    """Return the judge's prompt and what goes with it."""
    text = (
        resources.files("pennyweight.evaluate").joinpath("data/arena_hard.json").read_text(encoding="utf-8")
    )
    words: dict[str, Any] = json.loads(text)
    return words
