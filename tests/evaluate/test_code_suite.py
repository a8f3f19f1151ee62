# SPDX-License-Identifier: Apache-2.0
"""The suite `code`, end to end on small datasets in the published layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from generation_cases import DEMO, Scripted, job, write_rows

import pennyweight as pw
from pennyweight.errors import EvaluationError
from pennyweight.evaluate import code
from pennyweight.evaluate.results import Store
from pennyweight.evaluate.sandbox import Sandbox

ADD = {
    "task_id": "HumanEval/0",
    "prompt": 'import math\n\n\ndef add(a: int, b: int) -> int:\n    """Add.\n    >>> add(1, 2)\n    3\n    """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
}
TWICE = {
    "task_id": "HumanEval/1",
    "prompt": 'def helper(x):\n    return x\n\n\ndef twice(x):\n    """Twice helper(x)."""\n',
    "entry_point": "twice",
    "canonical_solution": "    return 2 * helper(x)\n",
    "test": "def check(candidate):\n    assert candidate(4) == 8\n",
}
MBPP: dict[str, Any] = {
    "task_id": 11,
    "text": "Write a function to negate a number.",
    "code": "def negate(x):\n    return -x",
    "test_list": ["assert negate(1) == -1", "assert (negate(K)) == -5"],
    "test_setup_code": "K = 5",
}
ANSWERS = {
    "def add(": "Here it is:\n```python\ndef add(a, b):\n    return int(math.fsum([a, b]))\n```\nDone.",
    "def twice(": "```python\ndef twice(x):\n    return 2 * helper(x)\n```",
    "negate": "```\ndef negate(x):\n    return -x\n```",
}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    more = "    assert candidate(10**9, 10**9) == 2 * 10**9\n"
    write_rows(root / "humaneval/test.jsonl", [ADD, TWICE])
    write_rows(root / "humaneval_plus/test.jsonl", [{**ADD, "test": ADD["test"] + more}])
    write_rows(root / "mbpp/test.jsonl", [MBPP])
    return root


@pytest.fixture(autouse=True)
def needs_a_jail() -> None:
    try:
        Sandbox()
    except EvaluationError as error:
        pytest.skip(str(error))


def right_for(count: int) -> Scripted:
    """Right in the first so many samples of each problem, wrong in all others."""

    def answer(text: str, sample: int) -> str:
        right = next(words for part, words in ANSWERS.items() if part in text)
        return right if sample < count else "```python\nx = 1\n```"

    return Scripted(answer)


def test_code_counts_what_passes(datasets: Path) -> None:
    found = code.run(job(right_for(3), datasets=datasets, samples=12, allow_code=True))
    assert found.tasks == pytest.approx({"humaneval": 25.0, "humaneval_plus": 25.0, "mbpp": 25.0})
    # without a right one among 10 of 12: C(9, 10) = 0 ways
    assert found.metrics["humaneval_pass@10"] == 100.0
    assert [(item["id"], item["passed"], item["score"]) for item in found.items] == [
        ("humaneval/HumanEval/0", 3, 0.25),
        ("humaneval/HumanEval/1", 3, 0.25),
        ("humaneval_plus/HumanEval/0", 3, 0.25),
        ("mbpp/11", 3, 0.25),
    ]
    assert found.items[3]["failures"] == {"NameError: name 'negate' is not defined": 9}


def test_code_pass_at_10_by_hand() -> None:
    items = [
        {"task": "mbpp", "samples": 12, "passed": 1},  # 1 - C(11,10) / C(12,10) = 1 - 11/66
        {"task": "mbpp", "samples": 12, "passed": 0},
    ]
    metrics, tasks = code.summarize(items)
    assert metrics == pytest.approx({"mbpp_pass@1": 100 / 24, "mbpp_pass@10": 50 * (1 - 11 / 66)})
    assert tasks == pytest.approx({"mbpp": 100 / 24})
    assert "mbpp_pass@10" not in code.summarize([{"task": "mbpp", "samples": 9, "passed": 1}])[0]


def test_code_samples_as_the_study(datasets: Path) -> None:
    target = right_for(50)
    code.run(job(target, datasets=datasets, allow_code=True, tasks=("mbpp",)))
    (asked,) = target.asked
    assert (asked["n"], asked["temperature"]) == (50, 0.2)
    assert (
        "Write a function to negate a number." in asked["text"] and "assert negate(1) == -1" in asked["text"]
    )
    again, other = right_for(50), right_for(50)
    code.run(job(again, datasets=datasets, allow_code=True, tasks=("mbpp",)))
    code.run(job(other, datasets=datasets, allow_code=True, tasks=("mbpp",), seed=1))
    assert again.asked == target.asked
    assert other.asked[0]["seed"] != asked["seed"]


def test_code_goes_on_from_its_store(datasets: Path) -> None:
    class Stops(Exception):
        pass

    def stop(text: str, sample: int) -> str:
        if "negate" in text:
            raise Stops
        return right_for(1).answer(text, sample)

    store = Store()
    options = {"datasets": datasets, "samples": 2, "allow_code": True}
    with pytest.raises(Stops):
        code.run(job(Scripted(stop), store=store, **options))
    target = right_for(1)
    found = code.run(job(target, store=store, **options))
    assert len(target.asked) == 1
    assert found.items == code.run(job(right_for(1), **options)).items


def test_code_continues_where_there_is_no_chat_template() -> None:
    problem = code.human_eval("humaneval", ADD)
    assert code.program(problem, "    return a + b\n", True).startswith(ADD["prompt"] + "    return a + b")
    box = Sandbox()
    assert box.run(code.program(problem, ADD["canonical_solution"], True)).passed
    assert not box.run(code.program(problem, "    return a - b\n", True)).passed
    assert box.run(code.program(code.mbpp("mbpp", MBPP), MBPP["code"], True)).passed


@pytest.mark.parametrize(
    "answer",
    [
        "```python\n    return a + b\n```",  # the body alone
        "```python\nprint('an example')\n```\nand\n```python\ndef add(a, b):\n    return a + b\n```",
        "def add(a, b):\n    return a + b",
        "```python\ndef add(a, b):\n    return a + b",  # cut at the longest answer
        "```py\nadd = lambda a, b: a + b\n```",
    ],
    ids=["body", "second-block", "no-block", "cut", "lambda"],
)
def test_code_is_found_in_an_answer(answer: str) -> None:
    assert Sandbox().run(code.program(code.human_eval("humaneval", ADD), answer, False)).passed


def test_code_runs_on_the_demo_model(datasets: Path, tmp_path: Path) -> None:
    found = pw.evaluate(
        DEMO, baseline=DEMO, suites="code", datasets=datasets, samples=2, max_new_tokens=8, allow_code=True,
        progress=False, out=tmp_path,
    )  # fmt: skip
    suite = found.models[0]["suites"]["code"]
    assert suite["metrics"]["humaneval_pass@1"] == 0.0
    assert suite["pairs"]["verdict"] == "no difference shown"
    assert suite["items"] == found.baseline["suites"]["code"]["items"]  # type: ignore[index]
    assert "pass@1" in str(found)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"allow_code": False}, "--allow-code"),
        ({"tasks": ("humanevil",)}, r"'humanevil' is no task; did you mean humaneval"),
        ({"datasets": Path("nowhere")}, "nowhere"),
    ],
)
def test_code_refuses(datasets: Path, options: dict[str, Any], text: str) -> None:
    target = right_for(1)
    with pytest.raises(EvaluationError, match=text):
        code.run(job(target, **{"datasets": datasets, "allow_code": True, "samples": 1, **options}))
    assert target.asked == []


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{**MBPP, "test_list": []}], "task 11 needs text"),
        ([{k: v for k, v in MBPP.items() if k != "test_list"}], "'test_list'"),
        ([MBPP, MBPP], "two rows of test have the task_id 11"),
    ],
    ids=["no-tests", "no-column", "twice"],
)
def test_code_refuses_a_dataset(rows: list[dict[str, Any]], text: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "mbpp/test.jsonl", rows)
    with pytest.raises(EvaluationError, match=text):
        code.run(job(right_for(1), datasets=tmp_path, allow_code=True, tasks=("mbpp",)))
