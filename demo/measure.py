# SPDX-License-Identifier: Apache-2.0
"""How well and how fast a language model does beside another one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import linear, log_softmax

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

BATCH = 8
#: The baseline's logits are kept up to this many bytes, and computed again for each comparison beyond.
KEPT_BYTES = 1 << 30
PROMPT, DECODED = 512, 32


@dataclass
class Quality:
    """Means over all predicted tokens.

    Attributes:
        nll: Negative log likelihood of the text, nats per token.
        kl: KL(baseline ‖ model), nats per token.
        agreement: Share of tokens whose most likely successor is the baseline's.
    """

    nll: float
    kl: float
    agreement: float

    @property
    def perplexity(self) -> float:
        return math.exp(self.nll)


@dataclass
class Speed:
    """Tokens per second: of a prompt read at once, and of one sequence continued token by token."""

    prefill: float
    decode: float


def float_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return logits (batch, length, vocabulary) as float32 sums, which bfloat16 would round to 3 digits."""
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return linear(hidden.float(), model.get_output_embeddings().weight.float())


class Baseline:
    """A model's answers on fixed windows of text, to hold others against.

    Args:
        model: Any causal language model.
        windows: Token ids, int64 (windows, length); all but each window's first token are predicted.
    """

    def __init__(self, model: PreTrainedModel, windows: torch.Tensor) -> None:
        self.windows = windows
        self._model = model
        size = windows.numel() * model.config.vocab_size * 4
        self._kept = list(self._logits(model)) if size <= KEPT_BYTES else None

    def _logits(self, model: PreTrainedModel) -> Iterator[torch.Tensor]:
        for batch in self.windows.split(BATCH):
            yield float_logits(model, batch)[:, :-1]

    @torch.inference_mode()
    def compare(self, model: PreTrainedModel) -> Quality:
        """Measure a model, its logits in float32."""
        nll = kl = same = 0.0
        for batch, ours, theirs in zip(
            self.windows.split(BATCH),
            self._logits(model),
            self._kept or self._logits(self._model),
            strict=True,
        ):
            log_q = log_softmax(ours, -1)
            log_p = log_softmax(theirs, -1)
            nll -= float(log_q.gather(-1, batch[:, 1:, None]).double().sum())
            kl += float((log_p.exp() * (log_p - log_q)).sum(-1).double().sum())
            same += float((log_p.argmax(-1) == log_q.argmax(-1)).sum())
        tokens = self.windows[:, 1:].numel()
        return Quality(nll / tokens, kl / tokens, same / tokens)


@torch.inference_mode()
def mean_nll(model: PreTrainedModel, windows: torch.Tensor) -> float:
    """Return the negative log likelihood of windows (windows, length), nats per predicted token."""
    total = 0.0
    for batch in windows.split(BATCH):
        log_p = log_softmax(model(input_ids=batch, use_cache=False).logits[:, :-1].float(), -1)
        total -= float(log_p.gather(-1, batch[:, 1:, None]).double().sum())
    return total / windows[:, 1:].numel()


def _once(model: PreTrainedModel, prompt: torch.Tensor) -> tuple[float, float]:
    """Return the seconds of one prefill and of DECODED greedy steps after it."""
    begin = time.perf_counter()
    out = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    middle = time.perf_counter()
    for _ in range(DECODED):
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
    return middle - begin, time.perf_counter() - middle


@torch.inference_mode()
def speeds(models: list[PreTrainedModel], prompt: torch.Tensor, rounds: int = 3) -> list[Speed]:
    """Time models in turn, so that what else the machine does meets all of them; the best of some rounds.

    Args:
        models: Causal language models.
        prompt: Token ids, int64 (1, length).
        rounds: Measurements of each, after one to warm up.
    """
    taken = [[_once(model, prompt) for model in models] for _ in range(rounds + 1)][1:]
    out = []
    for runs in zip(*taken, strict=True):
        prefill, decode = (min(seconds) for seconds in zip(*runs, strict=True))
        out.append(Speed(prompt.numel() / prefill, DECODED / decode))
    return out


class PeakMemory:
    """The most memory that this process holds inside a `with` block, in bytes; None where Linux does not tell."""

    bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._able = True
        except OSError:
            self._able = False
        return self

    def __exit__(self, *_: object) -> None:
        if self._able:
            status = Path("/proc/self/status").read_text().splitlines()
            high = next(line for line in status if line.startswith("VmHWM:"))
            self.bytes = int(high.split()[1]) * 1024
