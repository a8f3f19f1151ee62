# SPDX-License-Identifier: Apache-2.0
"""Train the demo model on the Python library's sources; see `corpus.py`.

The committed weights: 1.22 bits per byte on the held-out files, after 1600
steps (6.6 million tokens, two passes), half an hour on one shared core.

A stopped run goes on from its checkpoint; one stopped before the learning
rate falls can also go on with a larger --steps.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

import corpus
import heldout
from pennyweight.evaluate.in_process import InProcess
from pennyweight.evaluate.text import windows
from recipe import POSITIONS, SHORT, batch, build_model, build_optimizer, schedule
from tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


def update(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, rows: torch.Tensor, rate: float
) -> float:
    """Take one step; return its mean loss in nats per token."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    loss = cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def train(model: LlamaForCausalLM, stream: torch.Tensor, steps: int, state: Path) -> None:
    """Train up to `steps`, from the checkpoint where there is one."""
    optimizer, first, begin = build_optimizer(model), 0, time.monotonic()
    if state.exists():
        saved = torch.load(state)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    for step in range(first, steps):
        rate, length = schedule(step, steps)
        loss = update(model, optimizer, batch(stream, step, length), rate)
        if step % 20 == 0:
            passed = time.monotonic() - begin
            print(f"{step=} {loss=:.3f} {rate=:.5f} {passed=:.0f}s", flush=True)
        if (step + 1) % 100 == 0 and schedule(step + 1, steps)[1] == SHORT:
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**parts, "step": step + 1}, state)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Save the model in bfloat16 with its tokenizer, and measure what was saved."""
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    for path in out.iterdir():
        path.chmod(0o644)
    saved = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    size = sum(len(text.encode()) for text in heldout.heldout_texts())
    rows = windows(heldout.heldout_ids(tokenizer), 512)
    found = InProcess(saved, tokenizer, "demo").log_likelihoods([row.tolist() for row in rows])
    print("bits per byte:", -float(torch.cat(found).double().sum()) / math.log(2) / size)


def main() -> None:
    """Train the tokenizer and the model; save and measure them."""
    parser = argparse.ArgumentParser(description="train the demo model, on one thread")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("model"))
    parser.add_argument("--state", type=Path, default=Path("demo-state.pt"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    heldout.write_manifest()
    names = corpus.training_files()
    tokenizer = train_tokenizer(corpus.texts(names), POSITIONS)
    stream = corpus.encode(tokenizer, corpus.texts(names))
    model = build_model(tokenizer)
    train(model, stream, options.steps, options.state)
    save(model, tokenizer, options.out)


if __name__ == "__main__":
    main()
