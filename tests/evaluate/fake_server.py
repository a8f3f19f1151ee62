# SPDX-License-Identifier: Apache-2.0
"""An OpenAI-compatible server around a model in this process, which misbehaves when told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch


class FakeServer(ThreadingHTTPServer):
    """One model; `fault` names what goes wrong from request number `after` on."""

    daemon_threads = True

    def __init__(self, target: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.fault, self.after, self.seen = target, "", 0, 0
        self.lock, self.released = threading.Lock(), threading.Event()
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@contextmanager
def fake_server(target: Any) -> Iterator[FakeServer]:
    server = FakeServer(target)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(
            {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "us"}]}
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:  # one at a time: the model is shared
            self.server.requests.append(body)
            self.server.seen += 1
            fault = self.server.fault if self.server.seen > self.server.after else ""
            if not fault:
                answer = self.answer(body)
        if fault == "slow":
            self.server.released.wait(5)
            return
        if fault in ("500", "400"):
            self.reply({"error": {"message": "the engine is dead", "type": "server"}}, int(fault))
            return
        if fault == "closes":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"id": "x", "choices": [{"te')
            self.wfile.flush()
            self.close_connection = True
            return
        if fault == "html":
            self.reply("<html>a proxy's page</html>")
            return
        if body.get("stream"):
            self.stream(self.answer(body)["pieces"], fault)
            return
        if fault:
            answer = self.answer(body)
            choice = answer["choices"][0]
            if fault == "counts":
                answer["usage"]["prompt_tokens"] += 3
            elif fault == "short":
                choice["logprobs"]["token_logprobs"] = choice["logprobs"]["token_logprobs"][:4]
            elif fault == "nan":
                choice["logprobs"]["token_logprobs"][3] = float("nan")
            elif fault == "no-best":
                choice["logprobs"]["top_logprobs"] = None
            elif fault == "no-logprobs":
                choice["logprobs"] = None
            elif fault == "no-choices":
                answer["choices"] = []
            elif fault == "overlong":
                answer["usage"]["completion_tokens"] = 999
        self.reply(answer)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        base = {"id": "x", "created": int(time.time()), "model": body["model"]}
        prompt = body.get("prompt", body.get("messages"))
        if body.get("stream"):
            count = body["max_tokens"] if body.get("ignore_eos") else 1
            piece = {
                **base,
                "object": "text_completion",
                "choices": [{"index": 0, "text": "a", "finish_reason": None}],
            }
            usage = {
                "prompt_tokens": len(prompt),
                "completion_tokens": count,
                "total_tokens": len(prompt) + count,
            }
            return {"pieces": [piece] * count + [{**piece, "choices": [], "usage": usage}]}
        if body.get("echo"):
            (found,) = self.server.target.log_likelihoods([prompt])
            (logits,) = self.server.target.logits(torch.tensor([prompt]))
            best = logits[:-1].log_softmax(-1).max(-1)
            top = [
                {str(i): value} for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
            logprobs = {"token_logprobs": [None, *found.tolist(), -1.5], "top_logprobs": [None, *top, {"x": -1.5}],
                        "tokens": [], "text_offset": []}  # fmt: skip
            choice = {"index": 0, "text": "", "finish_reason": "length", "logprobs": logprobs}
            usage = {"prompt_tokens": len(prompt), "completion_tokens": 1, "total_tokens": len(prompt) + 1}
            return {**base, "object": "text_completion", "choices": [choice], "usage": usage}
        ((made,),) = self.server.target.generate(
            [prompt], max_new_tokens=body["max_tokens"], temperature=body["temperature"], seed=body["seed"],
            stop=body.get("stop") or (),
        )  # fmt: skip
        usage = {"prompt_tokens": 1, "completion_tokens": made.tokens, "total_tokens": 1 + made.tokens}
        if "messages" in body:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": made.text},
                "finish_reason": made.finish,
            }
            return {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
        choice = {"index": 0, "text": made.text, "finish_reason": made.finish, "logprobs": None}
        return {**base, "object": "text_completion", "choices": [choice], "usage": usage}

    def stream(self, pieces: list[dict[str, Any]], fault: str) -> None:
        if fault == "short":
            pieces = [*pieces[1:-1], {**pieces[-1], "usage": pieces[-1]["usage"] | {"completion_tokens": 1}}]
        elif fault == "no-usage":
            pieces = pieces[:-1]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def reply(self, answer: Any, status: int = 200) -> None:
        data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
