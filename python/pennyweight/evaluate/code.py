# SPDX-License-Identifier: Apache-2.0
"""Suite `code`: HumanEval, HumanEval+ and MBPP, as pass@k from samples that run in a sandbox.

    pass@k   1 − C(n − c, k) / C(n, k) of n samples of which c passed, in percent, mean over problems; k = 1, and 10
             where there are as many samples

The study: 50 samples at temperature 0.2 (HumanEval, HumanEval+; MBPP's setup is not published). A chat model is asked
for a Markdown block of code, as EvalPlus asks; a model without a chat template continues the problem's text and is
stopped where the next top-level statement begins. What comes before the problem's function, its imports and helpers,
is put before an answer that defines the function anew.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pennyweight.errors import EvaluationError
from pennyweight.evaluate import needs
from pennyweight.evaluate.answers import as_prompt, chosen, read_rows, sample
from pennyweight.evaluate.needs import Need
from pennyweight.evaluate.sandbox import Sandbox, Verdict
from pennyweight.evaluate.statistics import pass_at_k
from pennyweight.evaluate.suites import Job, SuiteResult

SAMPLES, TEMPERATURE, MAX_NEW_TOKENS = 50, 0.2, 1024
KS = (1, 10)
#: The sentence of EvalPlus (evalplus/codegen.py, Apache-2.0), in front of the problem.
INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem "
    "in a markdown code block:"
)
#: Where the continuation of a function's text has left the function (EvalPlus's list for direct completion).
STOPS = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\nif __name__", "\nprint(", "\n```")
STOPS_TESTS = ('\n"""', "\nassert ", "\nif __name__", "\nprint(", "\n```")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """One problem: what is asked, and how an answer becomes a program that ends well if it is right."""

    identity: str
    text: str  # for a chat model
    start: str  # for one that continues
    stops: tuple[str, ...]
    prelude: str
    entry: str
    tests: str


@dataclass(frozen=True)
class Task:
    """One dataset and how its rows are read."""

    need: Need
    read: Callable[[str, Row], Problem]


def human_eval(task: str, row: Row) -> Problem:
    """Return a row of HumanEval or HumanEval+ as a problem."""
    prompt, entry = str(row["prompt"]), str(row["entry_point"])
    prelude = prompt[:place] if (place := prompt.find(f"def {entry}(")) > 0 else ""
    return Problem(
        f"{task}/{row['task_id']}", f"{INSTRUCTION}\n```\n{prompt.strip()}\n```\n", prompt, STOPS, prelude, entry,
        f"{row['test']}\n\ncheck({entry})\n",
    )  # fmt: skip


def mbpp(task: str, row: Row) -> Problem:
    """Return a row of MBPP as a problem; its tests are part of what is asked, as they name the function."""
    text = row.get("text") or row.get("prompt")
    asserts = row["test_list"]
    if not isinstance(text, str) or not isinstance(asserts, (list, tuple)) or not asserts:
        raise EvaluationError(
            f"dataset 'mbpp': task {row.get('task_id')} needs text (or prompt) and a list test_list; it has "
            f"{', '.join(row)}"
        )
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or [])
    lines = "\n".join(map(str, asserts))
    entry = re.search(r"assert\s+(?:\w+\()*\s*(\w+)\(", str(asserts[0]))
    asked = f'"""\n{text.strip()}\nYour code should pass these tests:\n{lines}\n"""\n'
    return Problem(
        f"{task}/{row['task_id']}", f"{INSTRUCTION}\n```\n{asked}```\n", asked, STOPS_TESTS, "",
        entry.group(1) if entry else "", f"{setup}\n{lines}\n",
    )  # fmt: skip


TASKS = {
    "humaneval": Task(needs.HUMANEVAL, human_eval),
    "humaneval_plus": Task(needs.HUMANEVAL_PLUS, human_eval),
    "mbpp": Task(needs.MBPP, mbpp),
}


def run(job: Job) -> SuiteResult:
    """Sample programs from a model, run each against its problem's tests, and count what passes."""
    options = job.options
    if not options.allow_code:
        raise EvaluationError(
            "code: this suite runs programs that the model writes, each in a process without network and under "
            "limits of time, memory and disk; allow that with --allow-code"
        )
    problems = _problems(job)
    sandbox = Sandbox(weak=options.allow_weak_jail)
    samples = options.samples or SAMPLES
    items = []
    for identity, (task, problem) in problems.items():
        kept = job.store.get(identity)
        if kept is None:
            kept = job.store.put(identity, _item(job, task, problem, samples, sandbox))
        items.append(kept)
        job.progress(len(items), len(problems))
    notes = [f"{samples} samples per problem at temperature {TEMPERATURE}"]
    if not sandbox.full:
        notes.append("the programs ran in the weak jail: files and network were open to them")
    return SuiteResult(*summarize(items), items, notes)


def summarize(items: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return metrics `<task>_pass@<k>` in percent, and each task's pass@1."""
    metrics: dict[str, Any] = {}
    tasks: dict[str, float] = {}
    for task in dict.fromkeys(item["task"] for item in items):
        own = [(item["samples"], item["passed"]) for item in items if item["task"] == task]
        for k in KS:
            if all(k <= n for n, _ in own):
                metrics[f"{task}_pass@{k}"] = 100 * sum(pass_at_k(n, c, k) for n, c in own) / len(own)
        tasks[task] = metrics[f"{task}_pass@1"]
    return metrics, tasks


def program(problem: Problem, answer: str, continued: bool) -> str:
    """Return the program that tells whether an answer is right.

    Args:
        problem: The problem.
        answer: The model's text.
        continued: Whether it continues the problem's own text.
    """
    if continued:
        return f"{problem.start}{answer}\n\n{problem.tests}"
    code = extract_code(answer, problem.entry)
    if problem.entry and not re.search(
        rf"^(async )?def {problem.entry}\b|^{problem.entry}\s*=", code, re.MULTILINE
    ):
        return f"{problem.start}{code}\n\n{problem.tests}"  # it gave the function's body
    return f"{problem.prelude}\n{code}\n\n{problem.tests}"


def extract_code(answer: str, entry: str) -> str:
    """Return the code of an answer: the first Markdown block that defines `entry`, else the first, else all of it."""
    blocks: list[str] = re.findall(r"```[^\n]*\n(.*?)(?:```|\Z)", answer, re.DOTALL)
    defining = [block for block in blocks if entry and re.search(rf"\b{entry}\b\s*[(=]", block)]
    return (defining or blocks or [answer])[0].strip("\n")


def _problems(job: Job) -> dict[str, tuple[str, Problem]]:
    """Return the problems of all tasks by their identity, each with its task's name."""
    problems: dict[str, tuple[str, Problem]] = {}
    for name in chosen("code", job, TASKS):
        for row in read_rows(job, TASKS[name].need, "test", "task_id"):
            problem = TASKS[name].read(name, row)
            problems[problem.identity] = (name, problem)
    return problems


def _item(job: Job, task: str, problem: Problem, samples: int, sandbox: Sandbox) -> dict[str, Any]:
    continued = isinstance(as_prompt(job.target, problem.text), str)
    answers = sample(
        job, problem.identity, problem.start if continued else problem.text, samples=samples, temperature=TEMPERATURE,
        max_new_tokens=job.options.max_new_tokens or MAX_NEW_TOKENS, stop=problem.stops if continued else (),
    )  # fmt: skip
    programs = [program(problem, answer.text, continued) for answer in answers]
    different = list(dict.fromkeys(programs))  # at a low temperature many are the same
    verdicts = dict(zip(different, sandbox.run_all(different), strict=True))
    found: list[Verdict] = [verdicts[one] for one in programs]
    passed = sum(verdict.passed for verdict in found)
    failures = Counter(verdict.why for verdict in found if not verdict.passed)
    return {
        "id": problem.identity, "task": task, "score": passed / samples, "samples": samples, "passed": passed,
        "failures": dict(failures.most_common(5)), "model_text": answers[0].text,
    }  # fmt: skip
