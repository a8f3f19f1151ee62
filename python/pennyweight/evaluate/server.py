# SPDX-License-Identifier: Apache-2.0
"""A model behind an OpenAI-compatible server, such as vLLM (extra "server")."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pennyweight.checkpoint.tokenizer import load_tokenizer
from pennyweight.errors import EvaluationError, UnsupportedError
from pennyweight.evaluate.targets import Completion, Messages, is_ids

if TYPE_CHECKING:
    from torch import Tensor

#: Requests under way at once; the server batches them.
CONCURRENCY = 16
#: Seconds until an answer must be there, and how often a request is tried again where that may help.
TIMEOUT, RETRIES = 600.0, 2
T = TypeVar("T")
R = TypeVar("R")


class Server:
    """A model of a server, asked through the `openai` package; its key is taken from OPENAI_API_KEY.

    Args:
        url: "http://host:port/v1"; with "#model" where it serves several.
        tokenizer: The model's. By default that of the folder that the server names, if it is here.
        name: In tables; by default the model's.
        timeout: Seconds until an answer must be there.
        retries: How often a request is sent again after a failure that may pass.
    Raises:
        EvaluationError: No `openai` package; the server is not there, or not of that model.
    """

    kind = "server"

    def __init__(
        self,
        url: str,
        tokenizer: Any = None,
        name: str | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        if importlib.util.find_spec("openai") is None:
            raise EvaluationError(
                'asking a server needs openai, which is not installed; run: pip install "pennyweight[server]"'
            )
        import openai

        self.url, _, wanted = url.partition("#")
        self._timeout = timeout
        self._client: Any = openai.OpenAI(
            base_url=self.url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=timeout,
            max_retries=retries,
        )
        with self._failures():
            served = {model.id: model for model in self._client.models.list().data}
        if not served or (wanted and wanted not in served) or (not wanted and len(served) > 1):
            names = ", ".join(served) or "none"
            raise EvaluationError(
                f"{self.url}: serves {names}; name one of its models after the URL: {self.url}#NAME"
            )
        self._model = wanted or next(iter(served))
        self.name = name or Path(self._model).name
        root = getattr(served[self._model], "root", None) or self._model
        self._tokenizer = (
            tokenizer if tokenizer is not None or not Path(root).is_dir() else load_tokenizer(Path(root))
        )

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, or None."""
        return self._tokenizer

    def close(self) -> None:
        """Nothing is held between requests."""

    def log_likelihoods(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """As `Target.log_likelihoods`, from the log-probabilities that the server gives for an echoed prompt."""
        return self._each(self._log_p, [list(row) for row in rows])

    def scored(self, rows: Sequence[Sequence[int]]) -> list[tuple[Tensor, Tensor]]:
        """Return for each row what `log_likelihoods` does, and which tokens were the likeliest, bool (len - 1,)."""
        return self._each(self._log_p_and_best, [list(row) for row in rows])

    def logits(self, ids: Tensor) -> Tensor:
        """Raise UnsupportedError: no server gives them."""
        raise UnsupportedError(
            f"{self.name}: a server gives no logits; evaluate the model's folder in this process"
        )

    def generate(
        self,
        prompts: Sequence[str | Messages | list[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        n: int = 1,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> list[list[Completion]]:
        """As `Target.generate`, also for token ids; each answer is a request of its own, with a seed of its own."""
        options: dict[str, Any] = {
            "model": self._model, "max_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p
        }  # fmt: skip
        if stop:
            options["stop"] = list(stop)
        requests = [
            (p, {**options, "seed": seed + i * n + j}) for i, p in enumerate(prompts) for j in range(n)
        ]
        answers = self._each(self._complete, requests)
        return [answers[i : i + n] for i in range(0, len(answers), n)]

    @property
    def model_name(self) -> str:
        """The server's name for the model."""
        return self._model

    def stream(self, prompt: Sequence[int], tokens: int) -> list[float]:
        """Answer token ids with an exact number of tokens, an end token or not (`ignore_eos`, as vLLM has it).

        Returns:
            Seconds from the request until each piece came, and last until the stream ended.
        Raises:
            EvaluationError: As for every request, and where prompt or answer were of another length.
        """
        came: list[float] = []
        usage: Any = None
        with self._failures():
            begin = time.perf_counter()
            pieces = self._client.completions.create(
                model=self._model, prompt=list(prompt), max_tokens=tokens, temperature=0, stream=True,
                stream_options={"include_usage": True}, extra_body={"ignore_eos": True, "min_tokens": tokens},
            )  # fmt: skip
            for piece in pieces:
                usage = piece.usage or usage
                if piece.choices:
                    came.append(time.perf_counter() - begin)
            came.append(time.perf_counter() - begin)
        if usage is None or len(came) < 2:
            raise EvaluationError(
                f"{self.name}: the server streams no tokens, or does not say how many it made (stream_options)"
            )
        if (usage.prompt_tokens, usage.completion_tokens) != (len(prompt), tokens):
            raise EvaluationError(
                f"{self.name}: the server counts {usage.prompt_tokens} tokens of a prompt and "
                f"{usage.completion_tokens} of its answer where {len(prompt)} and {tokens} were asked for; it must "
                "take token ids and ignore_eos, as vLLM does, and have room for both"
            )
        return came

    def describe(self) -> dict[str, Any]:
        """Return name, kind, source (the URL) and the server's name for the model; it tells no hash."""
        return {
            "name": self.name, "kind": self.kind, "source": self.url, "model": self._model,
            "scheme": None, "dtype": None, "device": None, "bytes": None, "hash": None,
        }  # fmt: skip

    def _log_p(self, row: list[int]) -> Tensor:
        return self._echo(row)[0]

    def _log_p_and_best(self, row: list[int]) -> tuple[Tensor, Tensor]:
        import torch

        values, logprobs = self._echo(row)
        likeliest = getattr(logprobs, "top_logprobs", None) or []
        if len(likeliest) < len(row) or not all(likeliest[1 : len(row)]):
            raise EvaluationError(
                f"{self.name}: the server gives {len(likeliest)} likeliest tokens where {len(row)} tokens were sent; "
                "lm-eval's tasks need them (logprobs=1); vLLM gives them"
            )
        best = torch.tensor([max(one.values()) for one in likeliest[1 : len(row)]], dtype=torch.float32)
        return values, values >= best

    def _echo(self, row: list[int]) -> tuple[Tensor, Any]:
        """Return the log-probability of each token but the first, and all that the server says of log-probabilities."""
        import torch

        with self._failures():
            answer = self._client.completions.create(
                model=self._model, prompt=row, max_tokens=1, temperature=0, echo=True, logprobs=1
            )
            logprobs = answer.choices[0].logprobs if answer.choices else None
            found = logprobs.token_logprobs if logprobs else None
            counted = answer.usage.prompt_tokens if answer.usage else len(row)
        if not found:
            raise EvaluationError(
                f"{self.name}: the server gives no log-probabilities of a prompt (echo with logprobs); vLLM does"
            )
        if counted != len(row) or not len(row) <= len(found) <= len(row) + 1:
            raise EvaluationError(
                f"{self.name}: the server counts {counted} tokens and gives {len(found)} log-probabilities where "
                f"{len(row)} tokens were sent; its tokens are not this model's"
            )
        values = torch.tensor(
            [float("nan") if v is None else v for v in found[1 : len(row)]], dtype=torch.float32
        )
        if not torch.isfinite(values).all():
            raise EvaluationError(
                f"{self.name}: the server's log-probabilities hold NaN, Inf or nothing; the model it serves is damaged"
            )
        return values, logprobs

    def _complete(self, request: tuple[str | Messages | list[int], dict[str, Any]]) -> Completion:
        prompt, options = request
        with self._failures():
            if isinstance(prompt, str) or is_ids(prompt):
                answer = self._client.completions.create(prompt=prompt, **options)
                text = answer.choices[0].text or ""
            else:
                answer = self._client.chat.completions.create(messages=prompt, **options)
                text = answer.choices[0].message.content or ""
            finish = answer.choices[0].finish_reason
            tokens = answer.usage.completion_tokens if answer.usage else self._count(text)
        if tokens > options["max_tokens"]:
            raise EvaluationError(
                f"{self.name}: the server counts {tokens} tokens where at most {options['max_tokens']} were asked for; "
                "its tokens are not this model's, or it disregards max_tokens"
            )
        return Completion(text, tokens, "length" if finish == "length" else "stop")

    def _count(self, text: str) -> int:
        if self._tokenizer is None:
            raise EvaluationError(
                f"{self.name}: the server does not say how many tokens it made; give the model's tokenizer"
            )
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _each(self, function: Callable[[T], R], arguments: Sequence[T]) -> list[R]:
        """Ask for several things at once; the first failure ends it."""
        pool = ThreadPoolExecutor(CONCURRENCY)
        try:
            return list(pool.map(function, arguments))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what a request can fail by into a sentence."""
        import openai

        where = f"{self.url}: "
        try:
            yield
        except EvaluationError:
            raise
        except openai.APITimeoutError:
            raise EvaluationError(
                f"{where}did not answer within {self._timeout:g} s; see whether the server is overloaded, or give it "
                "more time with timeout="
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise EvaluationError(
                f"{where}the connection failed ({cause or type(cause).__name__}); see whether the server runs"
            ) from None
        except openai.APIStatusError as error:
            raise EvaluationError(f"{where}answered {error.status_code}: {error.message}"[:400]) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise EvaluationError(f"{where}gave no OpenAI-compatible answer: {error}"[:400]) from None
