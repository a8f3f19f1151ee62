# SPDX-License-Identifier: Apache-2.0
"""A whole model in torch, in bfloat16 or one of our formats, in a process of its own: model_torch.py torch THREADS

Commands as worker.py's; bench_model.py asks, and model_ggml.py answers the same but for "save".

    {"do": "build", "form": "bf16" or a scheme's name, "shape": LlamaConfig's words, "folder": F}
                                        makes the model of these sizes; random weights, the same ones every time
    {"do": "save"}                      writes each bfloat16 tensor to a file of its name in F
    {"do": "prefill", "ids": [...], "file": F or null}
                                        a prompt into an empty cache → {"seconds"}; writes the last logits, float32
    {"do": "decode", "ids": [...]}      one token after another → {"seconds": [of each]}
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # the imports below print

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig  # noqa: E402
from worker import serve  # noqa: E402


class Session:
    """A model and its cache."""

    def build(self, form: str, shape: dict[str, Any], folder: str) -> dict[str, Any]:
        torch.manual_seed(0)
        config = LlamaConfig(**shape)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
        model.model.embed_tokens.weight.data.mul_(
            100
        )  # no layer alone outweighs the residual, as in trained models
        self._model, self._folder = model.eval().requires_grad_(False), Path(folder)
        if form != "bf16":
            import pennyweight as pw
            from pennyweight.fuse import unfused

            pw.quantize(self._model, pw.Recipe(form, algorithm="rtn"), progress=False, fuse=True)
            if unfused(self._model):
                raise RuntimeError(f"left unfused: {unfused(self._model)}")
        return {}

    def save(self) -> dict[str, Any]:
        for name, value in self._model.state_dict().items():
            value.view(torch.int16).numpy().tofile(self._folder / name)
        return {}

    def _step(self, ids: list[int]) -> tuple[torch.Tensor, float]:
        tokens = torch.tensor([ids])
        begin = time.perf_counter()
        out = self._model(tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1], time.perf_counter() - begin

    def prefill(self, ids: list[int], file: str | None) -> dict[str, Any]:
        self._cache = DynamicCache(config=self._model.config)
        logits, seconds = self._step(ids)
        if file:
            logits.float().numpy().tofile(file)
        return {"seconds": seconds}

    def decode(self, ids: list[int]) -> dict[str, Any]:
        return {"seconds": [self._step([token])[1] for token in ids]}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    torch.set_grad_enabled(False)
    serve(Session(), sys.stdin, answers)  # type: ignore[arg-type]
