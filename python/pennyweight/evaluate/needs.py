# SPDX-License-Identifier: Apache-2.0
"""The datasets that suites read: where each is published, and in which layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pennyweight.errors import EvaluationError


@dataclass(frozen=True)
class Need:
    """A dataset that a suite reads from the folder of datasets.

    Attributes:
        name: Its folder there.
        hub: Where it is published.
        layout: A sentence: which files, what is in them.
        splits, columns: That must be there.
    """

    name: str
    hub: str
    layout: str
    splits: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


MMLU = Need(
    "mmlu", "cais/mmlu", "a folder for each of the 57 subjects (abstract_algebra, ...), in it dev and test: question, "
    "choices (list of 4), answer (0 to 3).", ("test", "dev"), ("question", "choices", "answer"),
)  # fmt: skip
ARC = Need(
    "arc", "allenai/ai2_arc", "ARC-Challenge/test: question, choices ({text: list, label: list}), answerKey.",
    ("test",), ("question", "choices", "answerKey"),
)  # fmt: skip
GSM8K = Need("gsm8k", "openai/gsm8k", "main/test: question, answer.", ("test",), ("question", "answer"))
HELLASWAG = Need(
    "hellaswag", "Rowan/hellaswag", "validation (the questions) and train (the examples): activity_label, ctx_a, "
    "ctx_b, endings (list of 4), label.", ("validation", "train"),
    ("activity_label", "ctx_a", "ctx_b", "endings", "label"),
)  # fmt: skip
WINOGRANDE = Need(
    "winogrande", "allenai/winogrande", "winogrande_xl/validation and winogrande_xl/train: sentence (with _), option1, "
    'option2, answer ("1" or "2").', ("validation", "train"), ("sentence", "option1", "option2", "answer"),
)  # fmt: skip
TRUTHFULQA = Need(
    "truthfulqa", "truthfulqa/truthful_qa", "multiple_choice/validation: question, mc1_targets and mc2_targets "
    "({choices: list, labels: list of 0 and 1}).", ("validation",), ("question", "mc1_targets", "mc2_targets"),
)  # fmt: skip

IFEVAL = Need(
    "ifeval", "wis-k/instruction-following-eval", "train: key, prompt, instruction_id_list, kwargs (list of objects).",
    ("train",), ("key", "prompt", "instruction_id_list", "kwargs"),
)  # fmt: skip
BBH = Need(
    "bbh", "SaylorTwift/bbh", "a folder for each of the 24 subtasks (boolean_expressions, ...), in it test: input, "
    "target.", ("test",), ("input", "target"),
)  # fmt: skip
MATH = Need(
    "math", "DigitalLearningGmbH/MATH-lighteval", "a folder for each of the 7 subjects (algebra, "
    "counting_and_probability, ...), in it test: problem, level, solution.", ("test",),
    ("problem", "level", "solution"),
)  # fmt: skip
GPQA = Need(
    "gpqa", "Idavidrein/gpqa (its gpqa_main.csv is gpqa_main/train.csv here)", "gpqa_main, gpqa_diamond, "
    "gpqa_extended, in each train: Question, Correct Answer, Incorrect Answer 1 to 3.", ("train",),
    ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
)  # fmt: skip
MUSR = Need(
    "musr", "TAUR-Lab/MuSR", "murder_mysteries, object_placements, team_allocation: narrative, question, choices (a "
    "list as text, \"['A', 'B']\"), answer_choice.", ("murder_mysteries", "object_placements", "team_allocation"),
    ("narrative", "question", "choices", "answer_choice"),
)  # fmt: skip
MMLU_PRO = Need(
    "mmlu_pro", "TIGER-Lab/MMLU-Pro", "test (the questions) and validation (the examples): question, options (list), "
    "answer (a letter).", ("test", "validation"), ("question", "options", "answer"),
)  # fmt: skip
PUNKT = Need(
    "nltk_data", "nltk's data package punkt_tab", "tokenizers/punkt_tab/english, with which nltk finds sentences."
)  # fmt: skip

ESSAYS = Need(
    "paul_graham_essays", "baber/paul_graham_essays", "train: text; the haystack of the needles.", ("train",), ("text",)
)  # fmt: skip
SQUAD = Need(
    "squad", "SQuAD 2.0 (rajpurkar.github.io/SQuAD-explorer)", "the file dev-v2.0.json as published.", ("dev-v2.0",)
)  # fmt: skip
HOTPOTQA = Need(
    "hotpotqa", "HotpotQA (hotpotqa.github.io)", "the file hotpot_dev_distractor_v1.json as it is published.",
    ("hotpot_dev_distractor_v1",), ("question", "answer", "context"),
)  # fmt: skip

_HUMAN_EVAL = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
HUMANEVAL = Need(
    "humaneval", "openai/openai_humaneval", "test: task_id, prompt, entry_point, canonical_solution, test.", ("test",),
    _HUMAN_EVAL,
)  # fmt: skip
HUMANEVAL_PLUS = Need(
    "humaneval_plus", "evalplus/humanevalplus", "test: the columns of HumanEval, with more tests.", ("test",),
    _HUMAN_EVAL,
)  # fmt: skip
MBPP = Need(
    "mbpp", "google-research-datasets/mbpp", "test: task_id, text or prompt, code, test_list, test_setup_code or "
    "test_imports.", ("test",), ("task_id", "code", "test_list"),
)  # fmt: skip

AIME24 = Need(
    "aime24", "HuggingFaceH4/aime_2024", "train: problem, answer.", ("train",), ("problem", "answer")
)
MATH_500 = Need(
    "math_500", "HuggingFaceH4/MATH-500", "test: problem, answer, subject, level, unique_id.", ("test",),
    ("problem", "answer"),
)  # fmt: skip
GPQA_DIAMOND = Need(
    "gpqa_diamond", "Idavidrein/gpqa (its gpqa_diamond.csv is train.csv here)", "train: Question, Correct Answer, "
    "Incorrect Answer 1 to 3.", ("train",), GPQA.columns,
)  # fmt: skip

ARENA_HARD = Need(
    "arena-hard", "lmarena-ai/arena-hard-auto (data/arena-hard-v0.1/question.jsonl)", "question: each has question_id "
    "or uid, and turns (the first one's content) or prompt; optionally baseline_answer, a file of model answers "
    "published with it (the study's: gpt-4-0314).", ("question",),
)  # fmt: skip

OPENLLM_V1 = (MMLU, ARC, GSM8K, HELLASWAG, WINOGRANDE, TRUTHFULQA)
OPENLLM_V2 = (IFEVAL, PUNKT, BBH, MATH, GPQA, MUSR, MMLU_PRO)
RULER = (ESSAYS, SQUAD, HOTPOTQA, PUNKT)
CODE = (HUMANEVAL, HUMANEVAL_PLUS, MBPP)
REASONING = (AIME24, MATH_500, GPQA_DIAMOND)


def find_punkt(root: Path | None) -> None:
    """Let nltk find its sentence model in the folder of datasets, or where it looks by itself.

    Raises:
        EvaluationError: It is in neither; lm-eval would try the network then.
    """
    import nltk

    if root is not None and str(root / PUNKT.name) not in nltk.data.path:
        nltk.data.path.insert(0, str(root / PUNKT.name))
    try:
        nltk.data.find("tokenizers/punkt_tab/english")
    except LookupError:
        where = "DIR/nltk_data (--datasets DIR)" if root is None else root / PUNKT.name
        raise EvaluationError(
            f"dataset {PUNKT.name!r}: punkt_tab is not in {where}, nor where nltk looks: {PUNKT.layout} On a machine "
            f"with the network: python -m nltk.downloader -d {where} punkt_tab"
        ) from None
