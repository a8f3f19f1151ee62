# SPDX-License-Identifier: Apache-2.0
"""What the tests of suites that generate share: a target that answers by a script, datasets, a judge, an encoder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from pennyweight.evaluate.results import Store
from pennyweight.evaluate.suites import Job, Options
from pennyweight.evaluate.targets import Completion, Target

DEMO = Path(__file__).parents[2] / "demo" / "model"


class Scripted:
    """A target whose answers a function gives: (the prompt's last text, the sample's number) → text."""

    kind, tokenizer = "object", None

    def __init__(self, answer: Callable[[str, int], str], name: str = "scripted") -> None:
        self.answer, self.name = answer, name
        self.asked: list[dict[str, Any]] = []

    def generate(
        self, prompts: Sequence[Any], *, max_new_tokens: int, n: int = 1, **options: Any
    ) -> list[list[Completion]]:
        texts = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
        self.asked += [{"text": text, "n": n, "max_new_tokens": max_new_tokens, **options} for text in texts]
        return [[Completion(self.answer(text, i), 1, "stop") for i in range(n)] for text in texts]

    def log_likelihoods(self, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        raise NotImplementedError

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "source": None, "scheme": None, "hash": self.name}


def job(target: Target, baseline: Target | None = None, store: Store | None = None, **options: Any) -> Job:
    return Job(target, baseline, Options(**options), store or Store(), lambda done, everything: None)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Judge:
    """An OpenAI-compatible server that judges, or misbehaves.

    Attributes:
        reply: (answer A, answer B) → the words of the judge.
        fails: "" or what it does instead: "error", "slow", "close".
        seen: The bodies of the requests.
    """

    def __init__(self, reply: Callable[[str, str], str]) -> None:
        self.reply, self.fails, self.seen = reply, "", list[dict[str, Any]]()
        self.stop = threading.Event()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send({"object": "list", "data": [{"id": "judge", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                judge.seen.append(body)
                if judge.fails == "error":
                    return self._send({"error": {"message": "out of memory"}}, 500)
                if judge.fails == "slow":
                    judge.stop.wait(20)
                sides = body["messages"][1]["content"].split("<|The Start of Assistant ")
                a, b = (side.split("Answer|>\n")[1].split("\n<|The End")[0] for side in sides[1:])
                message = {"role": "assistant", "content": judge.reply(a, b)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
                self._send({"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice],
                            "usage": usage})  # fmt: skip

            def _send(self, body: dict[str, Any], status: int = 200) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                cut = judge.fails == "close" and self.command == "POST"
                self.wfile.write(data[: len(data) // 2] if cut else data)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@contextmanager
def judge(reply: Callable[[str, str], str]) -> Iterator[Judge]:
    one = Judge(reply)
    thread = threading.Thread(target=one.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield one
    finally:
        one.stop.set()
        one.server.shutdown()
        thread.join()
        one.server.server_close()


def make_encoder(folder: Path, layers: int = 3, positions: int = 40) -> Path:
    """Save a randomly initialised RoBERTa of 16 features with a byte-level BPE tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    bpe.train_from_iterator(["the cat sat on the mat, a dog ran"] * 3, trainer)
    model = json.loads(bpe.to_str())["model"]
    tokenizer = RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=positions, initializer_range=0.5,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    return folder
