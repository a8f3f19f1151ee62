# SPDX-License-Identifier: Apache-2.0
"""The suite `arena-hard`: orders, weights, runs and interval, with a judge that judges and one that does not."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generation_cases import DEMO, Judge, Scripted, job, judge, write_rows

import pennyweight as pw
from pennyweight.errors import EvaluationError
from pennyweight.evaluate import arena
from pennyweight.evaluate.results import Store
from pennyweight.evaluate.server import Server

pytest.importorskip("openai")

NAMES = ("q1", "q2", "q3")
MODEL = Scripted(lambda text, i: f"long answer to {text}", "model")
BASE = Scripted(lambda text, i: f"answer to {text}", "base")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    rows = [{"question_id": name, "turns": [{"content": f"Why {name}? {{braces}}"}]} for name in NAMES]
    write_rows(root / "arena-hard/question.jsonl", rows)
    return root


def longer_is_better(a: str, b: str) -> str:
    return "[[A=B]]" if len(a) == len(b) else f"I say [[{'A>>B' if len(a) > len(b) else 'B>A'}]]"


@pytest.fixture
def server() -> Iterator[Judge]:
    with judge(longer_is_better) as one:
        yield one


@pytest.mark.parametrize(
    ("label", "battles"),
    [("A>>B", [0, 0, 0]), ("A>B", [0]), ("A=B", [0.5]), ("B>A", [1]), ("B>>A", [1, 1, 1]), (None, [])],
)
def test_verdicts_are_weighted(label: str | None, battles: list[float]) -> None:
    assert arena.scores(label) == battles


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("My final verdict is tie: [[A=B]].", "A=B"),
        ("[[A>B]] ... as I said, [[A>B]]", "A>B"),
        ("[[A<<B]]", "B>>A"),
        ("[[A>B]] or [[B>A]]", None),
        ("[[>]]", None),
        ("none", None),
    ],
)
def test_verdict_is_read(text: str, label: str | None) -> None:
    assert arena.verdict(text) == label


def test_arena_by_hand(datasets: Path, server: Judge) -> None:
    found = arena.run(job(MODEL, BASE, datasets=datasets, judge_url=server.url, judge_model="judge"))
    # The model's answer is longer: second, [[B>A]], one battle won; first, [[A>>B]], three.
    assert found.metrics["win_rate"] == found.metrics["run1"] == found.metrics["run2"] == 100.0
    assert (found.metrics["low"], found.metrics["high"]) == (100.0, 100.0)
    assert found.items[0]["verdicts"] == [["B>A", "B>>A"]] * 2
    assert found.tasks == {}  # against the run's own baseline there is nothing to recover
    assert len(server.seen) == 4 * len(NAMES)
    first = server.seen[0]["messages"]
    assert "impartial judge" in first[0]["content"] and "Why q" in first[1]["content"]
    assert "{braces}" in first[1]["content"]
    assert server.seen[0]["temperature"] == 0


def test_arena_weights_enter_the_rate() -> None:
    items = [
        {"verdicts": [["B>>A", "A>B"], ["B>A", "A=B"]]},  # runs: 3 of 4; 1.5 of 2
        {"verdicts": [["A>>B", None], ["A>B", "A>B"]]},  # 0 of 3; 0 of 2
    ]
    metrics, missing = arena.summarize(items, seed=0)
    assert (metrics["run1"], metrics["run2"]) == (pytest.approx(300 / 7), pytest.approx(37.5))
    assert metrics["win_rate"] == pytest.approx((300 / 7 + 37.5) / 2)
    assert missing == 1
    assert (metrics["low"], metrics["high"]) == (0.0, 75.0)  # both draws the second question; the first
    assert metrics == arena.summarize(items, seed=0)[0]


def test_arena_of_equal_answers_is_even(datasets: Path, server: Judge) -> None:
    found = arena.run(job(BASE, BASE, datasets=datasets, judge_url=server.url))
    assert found.metrics["win_rate"] == 50.0


def test_arena_against_published_answers(datasets: Path, server: Judge, tmp_path: Path) -> None:
    text = (datasets / "arena-hard/question.jsonl").read_text()
    (tmp_path / "arena-hard").mkdir()
    (tmp_path / "arena-hard/question.jsonl").write_text(text)
    rows: list[dict[str, Any]] = [
        {"question_id": n, "model_id": "gpt", "choices": [{"turns": [{"content": "x"}]}]} for n in NAMES[:2]
    ]
    path = tmp_path / "arena-hard/baseline_answer.jsonl"
    options = {"datasets": tmp_path, "judge_url": server.url}
    write_rows(path, rows)
    with pytest.raises(EvaluationError, match="no answer to 1 of 3 questions, first q3"):
        arena.run(job(MODEL, **options))
    write_rows(path, [*rows, {"uid": "q3", "model": "gpt", "messages": [{"content": {"answer": "x"}}]}])
    found = arena.run(job(MODEL, **options))
    assert found.tasks == {"arena-hard": 100.0}
    assert "judged by judge against gpt" in found.notes
    assert found.items[2]["baseline_text"] == "x"


def test_arena_asks_again_for_a_verdict(datasets: Path) -> None:
    with judge(lambda a, b: "I am not sure.") as server:
        options: dict[str, Any] = {"datasets": datasets, "judge_url": server.url, "limit": 1}
        with pytest.raises(EvaluationError, match="4 judgments and not one verdict"):
            arena.run(job(MODEL, BASE, **options))
        assert len(server.seen) == 8
        assert server.seen[-1]["messages"][-1]["content"].startswith("continue your judgment")


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        ("error", "answered 500: .*out of memory"),
        ("slow", "did not answer within 0.5 s"),
        ("close", "connection failed"),
    ],
)
def test_arena_names_what_the_judge_did(
    datasets: Path, server: Judge, fails: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "Server", functools.partial(Server, timeout=0.5, retries=0))
    store, options = Store(), {"datasets": datasets, "judge_url": server.url}
    server.fails = fails
    with pytest.raises(EvaluationError, match=text):
        arena.run(job(MODEL, BASE, store=store, **options))
    server.fails = ""
    monkeypatch.setattr(arena, "Server", Server)
    asked = len(MODEL.asked)
    assert arena.run(job(MODEL, BASE, store=store, **options)).metrics["win_rate"] == 100.0
    assert len(MODEL.asked) == asked  # the answers were kept


def test_arena_goes_on_where_it_stopped(datasets: Path) -> None:
    seen = 0

    def reply(a: str, b: str) -> str:
        nonlocal seen
        seen += 1
        server.fails = "error" if seen >= 4 else ""
        return longer_is_better(a, b)

    with judge(reply) as server:
        store, options = Store(), {"datasets": datasets, "judge_url": server.url}
        with pytest.raises(EvaluationError):
            arena.run(job(MODEL, BASE, store=store, **options))
        done = [item["prompt"] for item in store.items() if "verdicts" in item]
        assert done == ["Why q1? {braces}"]
        server.fails, server.reply = "", longer_is_better
        server.seen.clear()
        assert len(arena.run(job(MODEL, BASE, store=store, **options)).items) == len(NAMES)
        assert not any(done[0] in body["messages"][1]["content"] for body in server.seen)


def test_arena_runs_on_the_demo_model(datasets: Path, server: Judge, tmp_path: Path) -> None:
    found = pw.evaluate(
        [DEMO], baseline=DEMO, suites="arena-hard", datasets=datasets, judge_url=server.url, max_new_tokens=6,
        progress=False, out=tmp_path,
    )  # fmt: skip
    assert found.models[0]["suites"]["arena-hard"]["metrics"]["win_rate"] == 50.0
    assert found.baseline is not None
    assert found.baseline["suites"]["arena-hard"]["metrics"]["win_rate"] is None
    assert "win_rate" in str(found)


def test_arena_refuses(datasets: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="needs a judge"):
        arena.run(job(MODEL, BASE, datasets=datasets))
    with pytest.raises(EvaluationError, match="connection failed"):
        arena.run(job(MODEL, BASE, datasets=datasets, judge_url="http://127.0.0.1:9/v1"))
    write_rows(tmp_path / "arena-hard/question.jsonl", [{"question_id": "q", "turns": []}])
    with pytest.raises(EvaluationError, match="question 1 needs question_id or uid, and turns or prompt"):
        arena.arena_questions(job(MODEL, datasets=tmp_path))
