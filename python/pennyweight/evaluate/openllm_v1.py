# SPDX-License-Identifier: Apache-2.0
"""Suite `openllm-v1`: the study's seven columns, by lm-eval's tasks, with the study's shots, prompts and flags.

A column's score is that of all its questions; the average is the plain mean of the columns.
"""

from __future__ import annotations

from typing import Any

from pennyweight.evaluate.harness import Column, column_items, run_columns
from pennyweight.evaluate.needs import ARC, GSM8K, HELLASWAG, MMLU, TRUTHFULQA, WINOGRANDE
from pennyweight.evaluate.statistics import item_score
from pennyweight.evaluate.suites import Job, SuiteResult

# The study ran a fork of lm-eval of 2024 (tasks `..._llama_3.1_instruct`) through vLLM, with these max_length.
COLUMNS = (
    Column(
        "mmlu", "llama3/instruct/mmlu", MMLU, ("exact_match", "strict_match"), chat=True, max_length=3850,
        note="lm-eval's mmlu_llama stands for the fork's mmlu_llama_3.1_instruct: 5-shot, generated",
    ),
    Column(
        "mmlu_cot", "llama3/instruct/mmlu_cot", MMLU, ("exact_match", "strict_match"), chat=True, max_length=4064,
        note="lm-eval's mmlu_cot_llama stands for the fork's mmlu_cot_0shot_llama_3.1_instruct",
    ),
    Column(
        "arc_challenge", "llama3/instruct/arc_challenge", ARC, ("exact_match", "strict_match"), chat=True,
        max_length=3940,
        note="lm-eval's arc_challenge_llama stands for the fork's arc_challenge_llama_3.1_instruct",
    ),
    Column(
        "gsm8k", "gsm8k", GSM8K, ("exact_match", "strict-match"), ("gsm8k_cot_llama",), chat=True, max_gen_toks=1024,
        note="lm-eval's gsm8k_cot_llama stands for the fork's gsm8k_cot_llama_3.1_instruct: 8-shot, strict match",
    ),
    Column("hellaswag", "hellaswag", HELLASWAG, ("acc_norm", "none"), ("hellaswag",), shots=10),
    Column("winogrande", "winogrande", WINOGRANDE, ("acc", "none"), ("winogrande",), shots=5),
    Column("truthfulqa", "truthfulqa", TRUTHFULQA, ("acc", "none"), ("truthfulqa_mc2",), share=True),
)  # fmt: skip


def run(job: Job) -> SuiteResult:
    """Run the suite."""
    return run_columns(job, COLUMNS, column_items, _average)


def _average(items: list[dict[str, Any]]) -> float:
    scores = [score for item in items if (score := item_score(item)) is not None]
    return sum(scores) / len(scores)
