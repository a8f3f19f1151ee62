# SPDX-License-Identifier: Apache-2.0
"""What is measured: a folder or a model object in this process, or a server.

All answer the same questions, so a suite does not ask which it has; only `logits` is of this process alone. Numbers
that are not finite end in an EvaluationError that names the model and the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from torch import nn

from pennyweight.checkpoint.tokenizer import load_tokenizer
from pennyweight.errors import EvaluationError

if TYPE_CHECKING:
    from torch import Tensor

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Completion:
    """One answer.

    Attributes:
        text: Without special tokens, and without the stop string that ended it.
        tokens: How many the model made.
        finish: "stop" (an end token or a stop string) or "length".
    """

    text: str
    tokens: int
    finish: str


class Target(Protocol):
    """What can be asked of a model.

    Attributes:
        name: As shown in tables.
        kind: "folder", "object" or "server".
        tokenizer: Of transformers; None where there is none.
    """

    name: str
    kind: str

    @property
    def tokenizer(self) -> Any: ...

    def log_likelihoods(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return for each row of token ids the log-probability of each token but the first.

        Returns:
            float32 (len - 1,) per row, in nats.
        """

    def logits(self, ids: Tensor) -> Tensor:
        """(b, t) int64 -> (b, t, vocabulary) float32; UnsupportedError on a server."""

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
        """Return n answers to each prompt.

        Args:
            prompts: Texts, taken as they are, token ids, or messages, which go through the chat template.
            max_new_tokens: At most so many tokens each.
            temperature: 0: always the likeliest token.
            top_p: Sample from the likeliest tokens that have this share together.
            n: Answers to each.
            seed: Of the sampling.
            stop: Strings that end an answer.
        """

    def describe(self) -> dict[str, Any]:
        """Return what was measured: name, kind, source, scheme, dtype, device, hash."""


def is_ids(prompt: str | Messages | list[int]) -> TypeGuard[list[int]]:
    """Return whether a prompt is token ids."""
    return isinstance(prompt, list) and all(isinstance(token, int) for token in prompt)


def open_target(
    spec: str | Path | nn.Module | Target, *, tokenizer: Any = None, name: str | None = None
) -> Target:
    """Make something that suites can ask.

    Args:
        spec: A model's folder, the URL of an OpenAI-compatible server ("http://host:port/v1", "...#model" where it
            serves several), or a causal language model of transformers.
        tokenizer: The model's, or its folder; by default the folder's own.
        name: In tables; by default the folder's name, the server's for its model, or "model".
    Raises:
        CheckpointError, EvaluationError: There is no such folder, or no such server.
    """
    from pennyweight.evaluate.in_process import Folder, InProcess
    from pennyweight.evaluate.server import Server

    if isinstance(tokenizer, (str, Path)):
        tokenizer = load_tokenizer(Path(tokenizer))
    if isinstance(spec, nn.Module):
        return InProcess(spec, tokenizer, name or "model")
    if isinstance(spec, str) and spec.startswith(("http://", "https://")):
        return Server(spec, tokenizer, name)
    if isinstance(spec, (str, Path)):
        return Folder(Path(spec), tokenizer, name)
    if hasattr(spec, "log_likelihoods") and hasattr(spec, "describe"):
        return spec
    raise EvaluationError(
        f"evaluate: a model is a folder, a URL or a torch module; got {type(spec).__name__}"
    )


def check_same_tokens(model: Target, baseline: Target) -> None:
    """Raise EvaluationError where the two tokenizers, both known, do not mean the same by the same ids."""
    if model.tokenizer is None or baseline.tokenizer is None:
        return
    ours, theirs = model.tokenizer.get_vocab(), baseline.tokenizer.get_vocab()
    if ours == theirs:
        return
    other = min(set(ours.items()) ^ set(theirs.items()), key=lambda entry: (entry[1], entry[0]))[0]
    raise EvaluationError(
        f"{model.name}: its tokenizer differs from that of the baseline {baseline.name}: {len(ours)} and {len(theirs)} "
        f"tokens, {other!r} is {ours.get(other, 'none')} here and {theirs.get(other, 'none')} there; compare a model "
        "with the one it was made from"
    )
