# SPDX-License-Identifier: Apache-2.0
"""A server's answers are those of its model, and each way to misbehave is one sentence."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("openai")

from command import refused
from fake_server import FakeServer, fake_server
from tiny import tiny_ids
from tiny_tokens import tiny_tokenizer

import pennyweight as pw
from pennyweight.errors import EvaluationError, UnsupportedError
from pennyweight.evaluate import quick
from pennyweight.evaluate.server import Server

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # connections that the faults leave open
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.fixture
def server(model: Any) -> Iterator[FakeServer]:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    with fake_server(pw.evaluate.open_target(model, tokenizer=tokenizer)) as running:
        yield running


def opened(server: FakeServer, timeout: float = 20) -> Server:
    return Server(server.url, tiny_tokenizer(), timeout=timeout, retries=0)


def test_server_answers_as_its_model(server: FakeServer) -> None:
    target, rows = opened(server), tiny_ids(3, 12).tolist()
    for found, expected in zip(
        target.log_likelihoods(rows), server.target.log_likelihoods(rows), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # they travel as decimal digits
    prompts: list[Any] = ["w1 w2 w3", [{"role": "user", "content": "w7 w9"}]]
    assert target.generate(prompts, max_new_tokens=5) == server.target.generate(
        prompts[:1], max_new_tokens=5
    ) + (server.target.generate(prompts[1:], max_new_tokens=5))
    server.requests.clear()
    drawn = target.generate(prompts[:1], max_new_tokens=5, temperature=1.0, n=3, seed=4)
    assert sorted(request["seed"] for request in server.requests) == [4, 5, 6]
    assert len(drawn[0]) == 3
    with pytest.raises(UnsupportedError, match="gives no logits"):
        target.logits(tiny_ids(1, 2))
    assert (target.name, target.describe()["source"]) == ("tiny", server.url)


def test_quick_on_a_server_has_the_model_s_perplexity(server: FakeServer, model: Any) -> None:
    data = tiny_ids(3, 20)
    found = pw.evaluate(opened(server), baseline=model, data=data, progress=False, tokenizer=tiny_tokenizer())
    here = found["baseline"]["quick"]["metrics"]
    there = found["tiny"]["quick"]
    assert there["metrics"]["perplexity"] == pytest.approx(here["perplexity"], rel=1e-5)
    assert "kl" not in there["metrics"] and "no KL" in " ".join(there["notes"])
    assert there["pairs"]["verdict"] == "no difference shown"


FAULTS = {
    "slow": "did not answer within 0.3 s",
    "500": "answered 500: .*the engine is dead",
    "400": "answered 400: .*the engine is dead",
    "closes": "the connection failed",
    "html": "no OpenAI-compatible answer",
    "no-choices": "no log-probabilities|no OpenAI-compatible answer",
    "no-logprobs": "no log-probabilities of a prompt",
    "counts": "counts 15 tokens and gives 13 log-probabilities where 12 tokens were sent",
    "short": "counts 12 tokens and gives 4 log-probabilities where 12 tokens were sent",
    "nan": "log-probabilities hold NaN",
}


@pytest.mark.parametrize(("fault", "text"), FAULTS.items(), ids=FAULTS)
def test_server_fault_is_a_sentence(server: FakeServer, fault: str, text: str) -> None:
    target = opened(server, timeout=0.3 if fault == "slow" else 20)
    server.fault = fault
    with pytest.raises(EvaluationError, match=text):
        target.log_likelihoods(tiny_ids(1, 12).tolist())


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("overlong", "counts 999 tokens where at most 5"),
        ("closes", "connection failed"),
        ("no-choices", "no OpenAI"),
    ],
)
def test_server_fault_while_generating_is_a_sentence(server: FakeServer, fault: str, text: str) -> None:
    target = opened(server)
    server.fault = fault
    with pytest.raises(EvaluationError, match=text):
        target.generate(["w1 w2"], max_new_tokens=5)


def test_server_serves_what_is_asked_for(server: FakeServer) -> None:
    assert Server(f"{server.url}#tiny", retries=0).name == "tiny"
    with pytest.raises(EvaluationError, match="serves tiny; name one of its models after the URL"):
        Server(f"{server.url}#large", retries=0)


def test_server_that_stops_midway_leaves_a_partial_result_to_go_on_from(
    pennyweight: Callable, server: FakeServer, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "SERVER_ROWS", 3)
    arguments = ("evaluate", server.url, "--suite", "quick", "--data", folders / "text.txt", "--length", 40,
                 "--tokenizer", folders / "bf16", "--out", tmp_path)  # fmt: skip
    server.fault, server.after = "400", 6
    refused(pennyweight(*arguments), "what was done is in")
    partial = pw.evaluate.read(tmp_path / "tiny.json")["suites"]["quick"]
    assert partial["partial"] and partial["metrics"] == {}
    assert "answered 400" in partial["notes"][0]
    assert [item["id"] for item in partial["items"]] == [f"window-{i}" for i in range(6)]
    server.fault, before = "", len(server.requests)
    assert pennyweight(*arguments).code == 0
    assert len(server.requests) - before == 4  # of ten windows, those that were missing
    done = pw.evaluate.read(tmp_path / "tiny.json")["suites"]["quick"]
    assert not done["partial"] and len(done["items"]) == 10
    assert not (tmp_path / ".resume").exists()
    whole = pennyweight(*arguments[:-1], tmp_path / "at-once")
    assert whole.code == 0
    assert (
        pw.evaluate.read(tmp_path / "at-once" / "tiny.json")["suites"]["quick"]["metrics"] == done["metrics"]
    )


def test_server_that_is_down_is_one_line(pennyweight: Callable, folders: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        refused(
            pennyweight("evaluate", url, "--suite", "quick", "--data", folders / "text.txt"),
            f"{url}: the connection",
        )


def test_server_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EvaluationError, match=r'pip install "pennyweight\[server\]"'):
        Server("http://127.0.0.1:9/v1")


def test_results_are_json(tmp_path: Path, server: FakeServer) -> None:
    pw.evaluate(opened(server), data=tiny_ids(2, 8), out=tmp_path, progress=False)
    assert json.loads((tmp_path / "tiny.json").read_text())["model"]["kind"] == "server"
