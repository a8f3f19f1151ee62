# SPDX-License-Identifier: Apache-2.0
"""Small datasets in exactly the layouts of the published ones, for the suites that run through lm-eval."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nltk
import pyarrow
from lm_eval.tasks import TaskManager
from nltk.tokenize.punkt import PunktTrainer, save_punkt_params
from pyarrow import parquet

from pennyweight.evaluate.harness import TASKS

TEXT = (
    "The old mill stood by the river. Every morning the miller opened the sluice, and the wheel began to turn. "
    "Children came to watch. In winter the water froze, and nobody had flour. Then the road was built. "
)
Row = dict[str, Any]


def jsonl(path: Path, rows: list[Row]) -> None:
    """Write one object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def shards(folder: Path, split: str, rows: list[Row]) -> None:
    """Write two parquet files, named as the hub names them."""
    folder.mkdir(parents=True, exist_ok=True)
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        parquet.write_table(pyarrow.Table.from_pylist(part), folder / f"{split}-{number:05}-of-00002.parquet")


def task_configs(folder: str) -> dict[str, Row]:
    """Return lm-eval's configuration of each task in a folder."""
    manager = TaskManager(include_defaults=False, include_path=[TASKS / folder])
    return {name: manager.task_index[name].cfg for name in manager.all_subtasks}


def questions(count: int) -> list[Row]:
    """Return rows as MMLU has them."""
    return [
        {"question": f"What is {i} and {i}?", "subject": "sums", "answer": 0,
         "choices": [str(2 * i + j) for j in range(4)]}
        for i in range(count)
    ]  # fmt: skip


def make_v1(root: Path, count: int = 2) -> None:
    """Write the datasets of openllm-v1."""
    for config in task_configs("llama3/instruct/mmlu").values():
        jsonl(root / "mmlu" / config["dataset_name"] / "test.jsonl", questions(count))
        jsonl(root / "mmlu" / config["dataset_name"] / "dev.jsonl", questions(5))
    arc = [
        {"id": f"q{i}", "question": "What is hot?", "answerKey": "B" if i else "2",
         "choices": {"text": ["ice", "fire", "rain", "snow"], "label": ["A", "B", "C", "D"]}}
        for i in range(count)
    ]  # fmt: skip
    shards(root / "arc" / "ARC-Challenge", "test", arc)
    sums = [
        {"question": f"Ann has {i} pens and buys 2. How many?", "answer": f"{i} + 2.\n#### {i + 2}"}
        for i in range(count)
    ]
    jsonl(root / "gsm8k" / "main" / "test.jsonl", sums)
    for split, number in (("validation", count), ("train", 12)):
        rows = [
            {"ind": i, "activity_label": "Baking", "ctx_a": f"A man takes {i} eggs.", "ctx_b": "he",
             "endings": ["breaks them. [title]", "flies away.", "sings.", "sleeps in the bowl."], "label": str(i % 4)}
            for i in range(number)
        ]  # fmt: skip
        shards(root / "hellaswag" / "data", split, rows)
    for split, number in (("validation", count), ("train", 6)):
        rows = [
            {"sentence": f"The cup {i} did not fit in the box as the _ was big.", "option1": "cup", "option2": "box",
             "answer": str(1 + i % 2)}
            for i in range(number)
        ]  # fmt: skip
        jsonl(root / "winogrande" / "winogrande_xl" / f"{split}.jsonl", rows)
    truths = [
        {"question": "Do pigs fly?", "mc1_targets": {"choices": ["No.", "Yes."], "labels": [1, 0]},
         "mc2_targets": {"choices": ["No.", "Not at all.", "Yes."], "labels": [1, 1, 0]}}
        for _ in range(count)
    ]  # fmt: skip
    jsonl(root / "truthfulqa" / "multiple_choice" / "validation.jsonl", truths)


def make_v2(root: Path, count: int = 2) -> None:
    """Write the datasets of openllm-v2."""
    make_punkt(root)
    prompts = [
        {"key": i, "prompt": "Write about rain without commas, in two words or more.",
         "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
         "kwargs": [{"num_words": None, "relation": None}, {"num_words": 2, "relation": "at least"}]}
        for i in range(count)
    ]  # fmt: skip
    jsonl(root / "ifeval" / "train.jsonl", prompts)
    for config in task_configs("leaderboard/bbh_mc").values():
        answers = config["doc_to_choice"]
        rows = [
            {"input": f"Question {i}, which is it?", "target": answers[i % len(answers)]}
            for i in range(count)
        ]
        jsonl(root / "bbh" / config["dataset_name"] / "test.jsonl", rows)
    for config in task_configs("leaderboard/math").values():
        rows = [
            {"problem": f"What is ${i}+1$?", "level": f"Level {5 if i < count else 1}", "type": "Algebra",
             "solution": f"It is $\\boxed{{{i + 1}}}$."}
            for i in range(count + 1)
        ]  # fmt: skip
        jsonl(root / "math" / config["dataset_name"] / "test.jsonl", rows)
    for name in ("gpqa_main", "gpqa_diamond", "gpqa_extended"):
        path = root / "gpqa" / name / "train.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Question", "Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3))])
            writer.writerows(
                [f"Which gas, {name} {i}?", "argon", "neon", "xenon", "helium"] for i in range(count)
            )
    names = ["Ann", "Bob", "Cem", "Dia", "Eva"]
    for split, number in (("murder_mysteries", 2), ("object_placements", 5), ("team_allocation", 3)):
        rows = [
            {"narrative": TEXT, "question": "Who was it?", "choices": str(names[:number]), "answer_index": i % number,
             "answer_choice": names[i % number]}
            for i in range(count)
        ]  # fmt: skip
        jsonl(root / "musr" / f"{split}.jsonl", rows)
    for split, number in (("test", count), ("validation", 5)):
        rows = [
            {"question": f"What is {i} and 1?", "options": [str(i + 1 + j) for j in range(10)], "answer": "A",
             "answer_index": 0, "category": "math"}
            for i in range(number)
        ]  # fmt: skip
        jsonl(root / "mmlu_pro" / "data" / f"{split}.jsonl", rows)


def make_ruler(root: Path) -> None:
    """Write what the questions of ruler are made from."""
    make_punkt(root)
    jsonl(root / "paul_graham_essays" / "train.jsonl", [{"text": TEXT * 20} for _ in range(3)])
    paragraphs = [
        {"context": f"The town of Nr. {i} has {i} bridges.", "qas": [
            {"question": f"How many bridges has Nr. {i}?", "is_impossible": False, "answers": [{"text": str(i)}]},
            {"question": "Who built them?", "is_impossible": True, "answers": []},
        ]}
        for i in range(40)
    ]  # fmt: skip
    path = root / "squad" / "dev-v2.0.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "Towns", "paragraphs": paragraphs}]}))
    pairs = [
        {"_id": str(i), "question": f"Who lives in house {i}?", "answer": "Ann",
         "context": [[f"House {i}-{j}", ["Ann lives here. ", "It is old."]] for j in range(3)]}
        for i in range(40)
    ]  # fmt: skip
    path = root / "hotpotqa" / "hotpot_dev_distractor_v1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(pairs))


def make_punkt(root: Path) -> None:
    """Write nltk's sentence model, trained on a few sentences, as its package punkt_tab has it."""
    folder = root / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    if not folder.exists():
        folder.mkdir(parents=True)
        nltk.data.path.insert(0, str(root / "nltk_data"))  # it writes nowhere else
        save_punkt_params(PunktTrainer(TEXT * 10).get_params(), str(folder))
