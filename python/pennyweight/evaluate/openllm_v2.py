# SPDX-License-Identifier: Apache-2.0
"""Suite `openllm-v2`: the study's six columns, by lm-eval's `leaderboard_*` tasks.

BBH, GPQA, MuSR, MMLU-Pro   (s − r) / (1 − r) of each subtask, r what guessing gets, not clipped; mean over subtasks
MATH level 5                share of right answers, all questions alike
IFEval                      mean of two shares: prompts followed whole, single instructions followed, both strict
"""

from __future__ import annotations

from typing import Any

from lm_eval.api.task import Task

from pennyweight.evaluate.harness import Column, Part, column_items, describe_sample, run_columns
from pennyweight.evaluate.needs import BBH, GPQA, IFEVAL, MATH, MMLU_PRO, MUSR, find_punkt
from pennyweight.evaluate.statistics import normalize, task_scores
from pennyweight.evaluate.suites import Job, SuiteResult

COLUMNS = (
    Column(
        "ifeval", "leaderboard/ifeval", IFEVAL, ("prompt_level_strict_acc", "none"), chat=True,
        note="mean of prompt-level and instruction-level strict accuracy, as the group's scripts and the leaderboard "
        "have it; the paper does not say which it prints",
    ),
    Column("bbh", "leaderboard/bbh_mc", BBH, ("acc_norm", "none"), chat=True),
    Column(
        "math_hard", "leaderboard/math", MATH, ("exact_match_original", "none"), chat=True,
        note="exact match of the extracted answer, the only one when the study was made; lm-eval now calls it "
        "exact_match_original, and exact_match (math-verify) is among the metrics of its tasks",
    ),
    Column("gpqa", "leaderboard/gpqa", GPQA, ("acc_norm", "none"), chat=True),
    Column("musr", "leaderboard/musr", MUSR, ("acc_norm", "none"), chat=True),
    Column("mmlu_pro", "leaderboard/mmlu_pro", MMLU_PRO, ("acc", "none"), chat=True),
)  # fmt: skip

#: How many answers each subtask offers: guessing gets one in so many.
CHOICES = {
    "mmlu_pro": 10,
    "gpqa_main": 4, "gpqa_diamond": 4, "gpqa_extended": 4,
    "musr_murder_mysteries": 2, "musr_object_placements": 5, "musr_team_allocation": 3,
    "bbh_boolean_expressions": 2, "bbh_causal_judgement": 2, "bbh_date_understanding": 6, "bbh_disambiguation_qa": 3,
    "bbh_formal_fallacies": 2, "bbh_geometric_shapes": 11, "bbh_hyperbaton": 2,
    "bbh_logical_deduction_five_objects": 5, "bbh_logical_deduction_seven_objects": 7,
    "bbh_logical_deduction_three_objects": 3, "bbh_movie_recommendation": 6, "bbh_navigate": 2,
    "bbh_object_counting": 19, "bbh_penguins_in_a_table": 5, "bbh_reasoning_about_colored_objects": 18,
    "bbh_ruin_names": 6, "bbh_salient_translation_error_detection": 6, "bbh_snarks": 2, "bbh_sports_understanding": 2,
    "bbh_temporal_sequences": 4, "bbh_tracking_shuffled_objects_five_objects": 5,
    "bbh_tracking_shuffled_objects_seven_objects": 7, "bbh_tracking_shuffled_objects_three_objects": 3,
    "bbh_web_of_lies": 2,
}  # fmt: skip


def run(job: Job) -> SuiteResult:
    """Run the suite."""
    if not job.options.tasks or {"ifeval", "leaderboard_ifeval"} & set(job.options.tasks):
        find_punkt(job.options.datasets)
    return run_columns(job, COLUMNS, _items, _average)


def _items(part: Part, task: Task, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    subtask = part.name.removeprefix("leaderboard_")
    if subtask == "ifeval":
        return [item for sample in samples for item in _followed(task, sample)]
    items = column_items(part, task, samples)
    if subtask in CHOICES:
        for item in items:
            item["task"] = f"{part.column.key}/{subtask}"
            item["score"] = normalize(float(item["correct"]), 1 / CHOICES[subtask])
    return items


def _followed(task: Task, sample: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an item for the whole prompt, and one for each of its instructions."""
    shown = describe_sample(task, sample)
    whole = {**shown, "task": "ifeval/prompts", "correct": bool(sample["prompt_level_strict_acc"])}
    names = sample["doc"]["instruction_id_list"]
    followed = zip(names, sample["inst_level_strict_acc"], strict=True)
    return [
        whole,
        *(
            {
                "id": f"{shown['id']}/{number}",
                "task": "ifeval/instructions",
                "instruction": name,
                "score": float(value),
            }
            for number, (name, value) in enumerate(followed)
        ),
    ]


def _average(items: list[dict[str, Any]]) -> float:
    """Of one column: the mean over its subtasks of the mean over their items."""
    (score,) = task_scores(items).values()
    return score / 100
