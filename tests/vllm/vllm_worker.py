# SPDX-License-Identifier: Apache-2.0
"""Runs in vLLM's own environment: log-probabilities of given tokens under a checkpoint, teacher-forced.

python vllm_worker.py CHECKPOINT WINDOWS.npy OUT.npy: WINDOWS is int64 (n, length), OUT float32 (n, length − 1), the log
p of each token but a window's first. What vLLM has to say goes to stderr and stdout.
"""

from __future__ import annotations

import sys

import numpy as np
from vllm import LLM, SamplingParams


def main(checkpoint: str, windows_file: str, out_file: str) -> None:
    """Score all windows."""
    windows = np.load(windows_file)
    model = LLM(
        checkpoint,
        enforce_eager=True,
        max_model_len=windows.shape[1] + 1,
        seed=0,
    )
    asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
    prompts = [{"prompt_token_ids": row} for row in windows.tolist()]
    out = np.zeros((windows.shape[0], windows.shape[1] - 1), dtype=np.float32)
    for i, (row, answer) in enumerate(zip(windows.tolist(), model.generate(prompts, asked), strict=True)):
        out[i] = [answer.prompt_logprobs[j][token].logprob for j, token in enumerate(row) if j]
    np.save(out_file, out)


if __name__ == "__main__":  # vLLM starts processes of its own, which read this file again
    main(*sys.argv[1:])
