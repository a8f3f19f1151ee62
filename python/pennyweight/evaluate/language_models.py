# SPDX-License-Identifier: Apache-2.0
"""What lm-eval asks: its own backend around a model of this process, or a server through ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from pennyweight.errors import EvaluationError
from pennyweight.evaluate.quiet import quiet
from pennyweight.evaluate.server import CONCURRENCY, Server
from pennyweight.evaluate.suites import Job
from pennyweight.evaluate.targets import Messages, open_target

if TYPE_CHECKING:
    from torch import nn

#: Tokens of an answer where a task says nothing, as in lm-eval.
MAX_GEN_TOKS = 256


@register_model("pennyweight")
class PennyweightLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's own backend for models of transformers, around a model that runs on our kernels.

    Args:
        pretrained: A model's folder, quantized or not, or a model in memory.
        tokenizer: Its tokenizer or the folder of one; None: that in the model's folder.
        dtype: Of what is not quantized: "float32", "bfloat16", "float16"; "auto": the checkpoint's.
        device: Where it goes; None: it stays. lm-eval's command asks for "cuda:0" where nothing is said; as in lm-eval,
            a model stays on the CPU, with a warning, where torch finds no CUDA device.
        softmax_dtype: Of log-probabilities; with bfloat16, lm-eval's default would leave them 3 digits.
        options: lm-eval's `HFLM` has the rest: batch_size, max_length, add_bos_token, ...
    """

    def __init__(
        self,
        pretrained: str | Path | nn.Module,
        tokenizer: Any = None,
        dtype: str | torch.dtype | None = "auto",
        device: str | None = None,
        softmax_dtype: str | torch.dtype | None = "float32",
        **options: Any,
    ) -> None:
        target: Any = open_target(pretrained, tokenizer=tokenizer)
        model, tokenizer = target.model, target.tokenizer
        if tokenizer is None:
            raise EvaluationError(f"{target.name}: has no tokenizer beside it; give tokenizer=")
        if dtype not in (None, "auto"):
            model = model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            logging.getLogger("lm_eval").warning("torch finds no CUDA device; the model stays on the CPU")
        elif device is not None:
            model = model.to(device)
        with quiet():  # it warns that arguments about loading are not looked at
            super().__init__(pretrained=model, tokenizer=tokenizer, softmax_dtype=softmax_dtype, **options)


class ServerLM(TemplateLM):  # type: ignore[misc]
    """A server as lm-eval asks it.

    Prompts are encoded here and sent as token ids, so that none gets a second begin token; what the server counts is
    held against what was sent. lm-eval's own clients check neither, and take an answer they cannot read for an empty
    one. Without a tokenizer, messages go to the server's chat, and nothing but generating is possible.

    Args:
        server: The server.
        max_length: Tokens of prompt and answer together at most; prompts lose their beginning.
    """

    def __init__(self, server: Server, *, max_length: int) -> None:
        super().__init__()
        self.server, self.tokenizer, self.max_length = server, server.tokenizer, max_length
        self._room = max_length - 1  # of a prompt that is scored: a server always makes a token

    @property
    def eot_token_id(self) -> int:
        """The token that ends an answer."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has nothing before it."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        """Its folder."""
        return str(getattr(self.tokenizer, "name_or_path", ""))

    def apply_chat_template(self, chat_history: Messages, add_generation_prompt: bool = True) -> str:
        """Return a conversation as the model reads it; as JSON where the server has the template."""
        if self.tokenizer is None:
            return json.dumps(chat_history)
        return str(
            self.tokenizer.apply_chat_template(
                chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )  # fmt: skip

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the ids of a text, with special tokens as asked; else with them unless it begins with one already."""
        special = add_special_tokens
        if special is None:
            special = not string.startswith(self.tokenizer.decode([self.prefix_token_id]))
        ids: list[int] = self.tokenizer(string, add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts, in windows where they are longer than the model."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self._room - 1,
                context_len=1,
            )  # fmt: skip
            rows = [(("", ""), *make_disjoint_window(window)) for window in windows]
            found.append(sum(value for value, _ in self._loglikelihood_tokens(rows)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the answer to each prompt, up to the first of its stop strings."""
        found = [(r.args[0], normalize_gen_kwargs(dict(r.args[1]), MAX_GEN_TOKS)) for r in requests]
        answers: dict[int, str] = {}
        for chosen in _alike([settings for _, settings in found]):
            settings = found[chosen[0]][1]
            for part in _chunks(chosen):
                for index, text in zip(
                    part, self._answers([found[i][0] for i in part], settings), strict=True
                ):
                    answers[index] = text
                    self.cache_hook.add_partial("generate_until", requests[index].args, text)
        return [answers[i] for i in range(len(found))]

    def _answers(self, prompts: Sequence[str], settings: dict[str, Any]) -> list[str]:
        stop = [settings["until"]] if isinstance(settings["until"], str) else list(settings["until"] or ())
        answers = self.server.generate(
            [self._prompt(prompt, settings["max_gen_toks"]) for prompt in prompts],
            max_new_tokens=settings["max_gen_toks"], temperature=float(settings.get("temperature", 0.0)),
            top_p=float(settings.get("top_p", 1.0)), stop=stop,
        )  # fmt: skip
        return [postprocess_generated_text(answer[0].text, stop, None) for answer in answers]

    def _prompt(self, text: str, answer: int) -> Messages | list[int]:
        if self.tokenizer is None:
            messages: Messages = json.loads(text)
            return messages
        room = self.max_length - answer
        if room < 1:
            raise EvaluationError(
                f"{self.server.name}: an answer of {answer} tokens leaves no room for a prompt in {self.max_length}; "
                "allow shorter answers (--max-new-tokens)"
            )
        return self.tok_encode(text)[-room:]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        found = []
        for part in _chunks(range(len(requests))):
            rows = [(requests[i][1] + requests[i][2])[-self._room :] for i in part]
            for index, (log_p, best) in zip(part, self.server.scored(rows), strict=True):
                name, _before, asked = requests[index]
                found.append((float(log_p[-len(asked) :].sum()), bool(best[-len(asked) :].all())))
                if name != ("", ""):
                    self.cache_hook.add_partial("loglikelihood", name, found[-1])
        return found


def language_model(job: Job, *, max_length: int, chat: bool) -> LM:
    """Return what lm-eval asks: our model in this process, or the server.

    Args:
        job: Has the target.
        max_length: Tokens of prompt and answer at most, where the model has no lower limit.
        chat: Whether the prompts bring the begin token themselves, by the chat template.
    """
    target: Any = job.target
    if target.kind == "server":
        return ServerLM(target, max_length=max_length)
    most = getattr(target.model.config.get_text_config(), "max_position_embeddings", max_length)
    return PennyweightLM(
        target.model, target.tokenizer, batch_size=job.options.batch_size or 1, max_length=min(most, max_length),
        add_bos_token=None if chat else True,
    )  # fmt: skip


def _alike(settings: Sequence[dict[str, Any]]) -> Iterator[list[int]]:
    """Yield the indices of those that are equal."""
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(settings):
        groups.setdefault(json.dumps(one, sort_keys=True, default=str), []).append(index)
    yield from groups.values()


def _chunks(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield as many indices as a server has requests under way, some times over: between chunks progress shows."""
    size = 4 * CONCURRENCY
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
