# SPDX-License-Identifier: Apache-2.0
"""lm-eval's suites on a server: the answers of its model; what fails is a sentence, what is done is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness_data
import pytest
import torch

pytest.importorskip("openai")

from command import refused
from fake_server import FakeServer, fake_server
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import pennyweight as pw
from pennyweight.checkpoint.tokenizer import load_tokenizer
from pennyweight.errors import EvaluationError
from pennyweight.evaluate.language_models import PennyweightLM, ServerLM
from pennyweight.evaluate.server import Server

pytestmark = [
    pytest.mark.filterwarnings("default"),  # lm-eval's and its libraries' own
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # connections that the faults leave open
]
DEMO = Path(__file__).parents[2] / "demo" / "model"
PAIRS = [
    ("The old mill stood by", " the river."),
    ("", "Once upon a time"),
    ("Once", " upon a time there was a king"),
]
TASKS = ("winogrande", "gsm8k")


@pytest.fixture(scope="module")
def demo() -> Any:
    """The demo model in float32, where the sizes of batches hardly matter."""
    return AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)


@pytest.fixture(scope="module")
def random() -> Any:
    """One random layer with the demo's tokenizer: what it says does not matter, and it is quick."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=4096, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def server(random: Any) -> Iterator[FakeServer]:
    with fake_server(pw.evaluate.open_target(random, tokenizer=load_tokenizer(DEMO))) as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("datasets")
    harness_data.make_v1(path)
    harness_data.make_v2(path)
    harness_data.make_ruler(path)
    return path


def opened(server: FakeServer, timeout: float = 60) -> Server:
    return Server(server.url, load_tokenizer(DEMO), timeout=timeout, retries=0)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, args, i, ("task", i, 1)) for i, args in enumerate(arguments)]


def test_server_answers_lm_eval_as_its_model_does(server: FakeServer, demo: Any) -> None:
    server.target = pw.evaluate.open_target(demo, tokenizer=load_tokenizer(DEMO))
    here = PennyweightLM(demo, load_tokenizer(DEMO), max_length=256)
    there = ServerLM(opened(server), max_length=256)
    texts = [(harness_data.TEXT * 8,), ("The river.",)]  # the first in two windows
    asked = [
        (text, {"until": ["\n", "the"], "max_gen_toks": 6, "do_sample": False}) for text, _ in PAIRS if text
    ]
    asked.append((harness_data.TEXT * 8, {"until": ["\n"], "max_gen_toks": 3}))  # loses its beginning
    pairs = instances("loglikelihood", PAIRS)
    for ours, theirs in zip(here.loglikelihood(pairs), there.loglikelihood(pairs), strict=True):
        assert abs(ours[0] - theirs[0]) <= 1e-4 and ours[1] == theirs[1]
    ids = here.tok_encode("import os")
    best = int(server.target.logits(torch.tensor([ids]))[0, -1].argmax())
    asked_ids = [(("", ""), ids, [token]) for token in (best, best + 1)]
    assert [greedy for _, greedy in there._loglikelihood_tokens(asked_ids)] == [True, False]
    # A server scores max_length - 1 tokens, the first of which has no score; in process there are max_length scores.
    narrow = PennyweightLM(demo, load_tokenizer(DEMO), max_length=254)
    rolling = [lm.loglikelihood_rolling(instances("loglikelihood_rolling", texts)) for lm in (narrow, there)]
    assert rolling[0] == pytest.approx(rolling[1], abs=1e-3)  # sums of 200 and more
    made = [lm.generate_until(instances("generate_until", asked)) for lm in (here, there)]
    assert made[0] == made[1]
    assert all(
        isinstance(request["prompt"], list) for request in server.requests
    )  # ids: no second begin token


@pytest.mark.parametrize(
    ("suite", "options"),
    [
        ("openllm-v1", {"tasks": TASKS, "limit": 2, "max_new_tokens": 4}),
        ("openllm-v2", {"tasks": ("ifeval", "gpqa"), "limit": 1, "max_new_tokens": 4}),
        ("ruler", {"tasks": ("niah_single_1",), "limit": 1, "max_new_tokens": 4, "context_lengths": (1024,)}),
    ],
    ids=["v1", "v2", "ruler"],
)
def test_suite_on_a_server_is_that_on_its_model(
    server: FakeServer, random: Any, root: Path, suite: str, options: dict[str, Any]
) -> None:
    here = pw.evaluate.open_target(random, tokenizer=load_tokenizer(DEMO), name="here")
    found = pw.evaluate([here, opened(server)], suites=suite, datasets=root, progress=False, **options)
    ours, theirs = found["here"][suite], found["tiny"][suite]
    assert ours["items"] and ours["items"] == theirs["items"]
    assert ours["tasks"] == theirs["tasks"]


def test_chat_without_a_tokenizer_sends_messages(server: FakeServer, root: Path) -> None:
    target = Server(server.url, timeout=60, retries=0)
    options: dict[str, Any] = {"suites": "openllm-v1", "datasets": root, "limit": 1, "max_new_tokens": 2}
    pw.evaluate(target, tasks=["gsm8k"], progress=False, **options)
    assert [m["role"] for m in server.requests[0]["messages"]][-2:] == ["assistant", "user"]
    with pytest.raises(EvaluationError, match="tiny: task 'winogrande' needs the model's tokenizer"):
        pw.evaluate(target, tasks=["winogrande"], progress=False, **options)


FAULTS = {
    "slow": "did not answer within 3 s",
    "500": "answered 500: .*the engine is dead",
    "closes": "the connection failed",
    "html": "no OpenAI-compatible answer",
    "counts": r"counts \d+ tokens and gives \d+ log-probabilities where \d+ tokens were sent",
    "short": "gives 4 log-probabilities where",
    "nan": "log-probabilities hold NaN",
    "no-logprobs": "no log-probabilities of a prompt",
    "no-best": "gives 0 likeliest tokens where",
}


@pytest.mark.parametrize(("fault", "text"), FAULTS.items(), ids=FAULTS)
def test_fault_in_lm_eval_s_requests_is_a_sentence_and_keeps_finished_tasks(
    server: FakeServer, root: Path, tmp_path: Path, fault: str, text: str
) -> None:
    target = opened(server, timeout=3 if fault == "slow" else 60)
    server.fault, server.after = fault, 2  # gsm8k's two answers are there
    options: dict[str, Any] = {
        "suites": "openllm-v1", "datasets": root, "limit": 2, "max_new_tokens": 2, "out": tmp_path, "progress": False,
    }  # fmt: skip
    with pytest.raises(EvaluationError, match=f"{text}.*; what was done is in .*, marked as partial"):
        pw.evaluate(target, tasks=TASKS, **options)
    partial = pw.evaluate.read(tmp_path / "tiny.json")["suites"]["openllm-v1"]
    assert partial["partial"] and partial["metrics"] == {}
    assert [item["id"] for item in partial["items"]] == ["gsm8k_cot_llama/0", "gsm8k_cot_llama/1"]
    server.fault, before = "", len(server.requests)
    done = pw.evaluate(opened(server), tasks=TASKS, **options)["tiny"]["openllm-v1"]
    assert all("echo" in request for request in server.requests[before:])  # gsm8k is not asked again
    assert len(done["items"]) == 4 and set(done["tasks"]) == set(TASKS)


def test_command_on_a_server_ends_with_one_line(
    pennyweight: Callable, server: FakeServer, root: Path, tmp_path: Path
) -> None:
    arguments = ("evaluate", server.url, "--suite", "openllm-v1", "--task", "gsm8k", "--task", "winogrande", "--limit",
                 2, "--max-new-tokens", 2, "--datasets", root, "--tokenizer", DEMO, "--out", tmp_path)  # fmt: skip
    server.fault, server.after = "400", 3
    refused(pennyweight(*arguments), "answered 400")
    server.fault = ""
    done = pennyweight(*arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1].split() == ["model", "average", "gsm8k", "winogrande"]
