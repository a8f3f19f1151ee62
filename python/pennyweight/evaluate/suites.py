# SPDX-License-Identifier: Apache-2.0
"""The suites: what each measures, the module that runs it, what it needs, and what it is given and gives back.

A suite's module has one function, ``run(job: Job) -> SuiteResult``. It is imported when the suite is asked for, and so
are the libraries that it needs.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import needs
from pennyweight.evaluate.needs import Need

if TYPE_CHECKING:
    from pennyweight.evaluate.results import Store
    from pennyweight.evaluate.targets import Target


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        name: As on the command line.
        summary: One line.
        module: In this package.
        extra: The extra that installs its libraries; None: the core has all.
        imports: Modules of that extra, tried before anything runs.
        datasets: What it reads; `similarity` where no prompts are given.
        columns: Metrics that its table shows, in order; empty: all that are plain numbers.
    """

    name: str
    summary: str
    module: str
    extra: str | None = None
    imports: tuple[str, ...] = ()
    datasets: tuple[Need, ...] = ()
    columns: tuple[str, ...] = ()

    def load(self) -> Callable[[Job], SuiteResult]:
        """Return the suite's function, or say which library is missing and how to get it."""
        missing = [name for name in self.imports if importlib.util.find_spec(name) is None]
        if missing:
            raise EvaluationError(
                f"suite {self.name!r} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
                f'installed; run: pip install "pennyweight[{self.extra}]"'
            )
        run: Callable[[Job], SuiteResult] = importlib.import_module(f"pennyweight.evaluate.{self.module}").run
        return run


@dataclass
class Options:
    """What a user asks of suites; each reads what concerns it.

    Attributes:
        data: Of `quick`: a file or folder of texts or token ids, texts, or ids (n, length).
        prompts: Of `similarity`: a .jsonl file, each line with `prompt` or `messages`.
        datasets: Folder of datasets, one folder each.
        limit: Items per task or dataset at most (of `quick`: windows); None: all.
        seed: Of whatever is drawn.
        batch_size: Items at once in this process; None: the suite's choice.
        samples: Answers per question; None: the suite's choice.
        length: Tokens of a window of `quick`.
        max_new_tokens: Of an answer; None: the suite's choice.
        context_lengths: Of `ruler`; empty: its own.
        tasks: Only these of a suite's tasks; empty: all.
        allow_code: Whether `code` may run the programs that a model writes, in a sandbox.
        allow_weak_jail: Whether that may be limits alone where this machine allows no namespaces.
        judge_url, judge_model: The server that judges, and the model there.
        bertscore_model, sts_model: Folders of encoders.
    """

    data: Any = None
    prompts: Path | None = None
    datasets: Path | None = None
    limit: int | None = None
    seed: int = 0
    batch_size: int | None = None
    samples: int | None = None
    length: int = 512
    max_new_tokens: int | None = None
    context_lengths: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    allow_code: bool = False
    allow_weak_jail: bool = False
    judge_url: str | None = None
    judge_model: str | None = None
    bertscore_model: Path | None = None
    sts_model: Path | None = None

    def __post_init__(self) -> None:
        for name in ("limit", "batch_size", "samples", "length", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvaluationError(f"evaluate: {name} must be at least 1; got {value}")
        for name in ("prompts", "datasets", "bertscore_model", "sts_model"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, Path(value))

    def to_dict(self) -> dict[str, Any]:
        """Return those that differ from the defaults, as plain values; data in memory as what it is."""
        plain = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value is self or value is None or item.name == "seed" or value == item.default:
                continue
            plain[item.name] = value if isinstance(value, (bool, int, float, str)) else _plain(value)
        return plain | {"seed": self.seed}


@dataclass
class Job:
    """One suite on one model.

    Attributes:
        target: The model.
        baseline: What it is held against; None while the baseline itself is measured, and where there is none.
        options: What was asked for.
        store: Items that are done; those of an interrupted run are there already.
        progress: Called with (done, all) now and then.
    """

    target: Target
    baseline: Target | None
    options: Options
    store: Store
    progress: Callable[[int, int], None]


@dataclass
class SuiteResult:
    """What a suite found.

    Attributes:
        metrics: By stable keys; plain values, None for what could not be measured.
        tasks: Scores 0 to 100 that `recovery` averages; empty where the suite has none.
        items: Each with `id` and, where it is an answer, `correct` (bool) or `score`; `task` names its task, or its
            part of one ("bbh/navigate"); and what a reader wants to see.
        notes: Sentences that belong beside the figures.
        partial: Whether something is missing; a note says what.
    """

    metrics: dict[str, Any]
    tasks: dict[str, float] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    partial: bool = False


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "quick",
            "perplexity, bits per byte, KL to the baseline, top-1 agreement and flips, on any text or token file",
            "quick",
            columns=("perplexity", "bits_per_byte", "kl", "kl_p999", "top1", "gained", "lost"),
        ),
        Suite(
            "openllm-v1",
            "the study's seven columns of Open LLM Leaderboard V1, with its shots, prompts and flags, by lm-eval",
            "openllm_v1",
            "lm-eval",
            ("lm_eval", "sklearn", "accelerate", "tenacity"),
            needs.OPENLLM_V1,
            (
                "average",
                "mmlu",
                "mmlu_cot",
                "arc_challenge",
                "gsm8k",
                "hellaswag",
                "winogrande",
                "truthfulqa",
            ),
        ),
        Suite(
            "openllm-v2",
            "the six columns of Open LLM Leaderboard V2, above chance where the study has them so, by lm-eval",
            "openllm_v2",
            "lm-eval",
            ("lm_eval", "langdetect", "immutabledict", "nltk", "math_verify", "accelerate", "tenacity"),
            needs.OPENLLM_V2,
            ("average", "ifeval", "bbh", "math_hard", "gpqa", "musr", "mmlu_pro"),
        ),
        Suite(
            "ruler",
            "thirteen tasks on long contexts, 4k to 128k, by lm-eval",
            "ruler",
            "lm-eval",
            ("lm_eval", "nltk", "wonderwords", "scipy", "accelerate", "tenacity"),
            needs.RULER,
        ),
        Suite(
            "code",
            "HumanEval, HumanEval+ and MBPP: pass@k of programs that run in a sandbox",
            "code",
            datasets=needs.CODE,
        ),
        Suite(
            "similarity",
            "greedy answers of model and baseline to the same prompts: ROUGE, BERTScore, STS, first divergence",
            "similarity",
            "similarity",
            ("rouge_score", "bert_score", "sentence_transformers"),
            (needs.ARENA_HARD,),
            columns=("rouge1", "rougeL", "bertscore", "sts", "identical"),
        ),
        Suite(
            "reasoning",
            "AIME24, MATH-500 and GPQA-Diamond: pass@1 over 20 samples and its spread",
            "reasoning",
            "reasoning",
            ("math_verify",),
            needs.REASONING,
        ),
        Suite(
            "arena-hard",
            "a judge compares answers with the baseline's, both orders, two runs: win rate and interval",
            "arena",
            "server",
            ("openai",),
            (needs.ARENA_HARD,),
            columns=("win_rate", "low", "high", "run1", "run2"),
        ),
    )
}


def find_suite(name: str) -> Suite:
    """Return the suite of that name; EvaluationError with the nearest names where there is none."""
    if name in SUITES:
        return SUITES[name]
    raise EvaluationError(f"evaluate: {unknown('suite', name, SUITES)}")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return a clause that says that a name is unknown, with the nearest names, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
    return f"{name!r} is no {kind}; {hint}"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value):
        return list(value)
    if isinstance(value, (list, tuple)):
        return f"{len(value)} items"
    return f"{type(value).__name__} {list(value.shape)}" if hasattr(value, "shape") else type(value).__name__
