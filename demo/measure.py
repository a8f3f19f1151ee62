# SPDX-License-Identifier: Apache-2.0
"""How well and how fast a language model does beside another one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pennyweight.evaluate import quick
from pennyweight.evaluate.in_process import InProcess

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT, DECODED = 512, 32


@dataclass
class Speed:
    """Tokens per second: of a prompt read at once, and of one sequence continued token by token."""

    prefill: float
    decode: float


class Baseline:
    """A model's answers on fixed windows of text, to hold others against.

    Args:
        model: Any causal language model.
        windows: Token ids, int64 (windows, length); all but each window's first token are predicted.
    """

    def __init__(self, model: PreTrainedModel, windows: torch.Tensor) -> None:
        self.windows = windows
        self._target = InProcess(model, None, "BF16")
        self._target.remember()

    def compare(self, model: PreTrainedModel) -> dict[str, Any]:
        """Measure a model: `perplexity`, `kl`, `top1` and the other metrics of the suite `quick`."""
        target = InProcess(model, None, "model")
        batches = target.batches([self.windows.shape[1]] * len(self.windows))
        return quick.summarize(
            [item for batch in batches for item in quick.measure(target, self._target, self.windows[batch])]
        )


def mean_nll(model: PreTrainedModel, windows: torch.Tensor) -> float:
    """Return the negative log likelihood of windows (windows, length), nats per predicted token."""
    found = InProcess(model, None, "model").log_likelihoods(windows.tolist())
    return -float(torch.cat(found).double().mean())


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
