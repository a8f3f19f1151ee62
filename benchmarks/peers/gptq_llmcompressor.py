# SPDX-License-Identifier: Apache-2.0
"""llm-compressor's GPTQ of one weight in a process of its own: python gptq_llmcompressor.py llmcompressor THREADS

Commands as worker.py's; a time is {"seconds": wall, "cpu_seconds": of all threads}.

    {"do": "ready"}                                                → {}
    {"do": "hessian", "x": F, "tokens": T, "k": K}                 → time of one update with bfloat16 (T, K)
    {"do": "solve", "weight": F, "hessian": F, "scale": F, "n": N, "k": K, "codes": F}
                                                                   → time; writes codes (N, K) float32
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # the imports below print

import numpy as np  # noqa: E402
import torch  # noqa: E402
from compressed_tensors.quantization import QuantizationArgs  # noqa: E402
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight  # noqa: E402
from llmcompressor.modifiers.gptq.helpers import accumulate_hessian  # noqa: E402
from worker import serve  # noqa: E402

GROUP = 128


def read(file: str, rows: int, columns: int) -> torch.Tensor:
    """Return a file's matrix, a copy that may be written to."""
    return torch.from_numpy(np.fromfile(file, np.float32).reshape(rows, columns))


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Return a call's result and how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


class Session:
    """Answers one command after the other."""

    def ready(self) -> dict[str, Any]:
        return {}

    def hessian(self, x: str, tokens: int, k: int) -> dict[str, Any]:
        rows = read(x, tokens, k).bfloat16()
        layer, samples = torch.nn.Linear(k, 1, bias=False), torch.zeros(())
        h = torch.zeros(k, k)
        accumulate_hessian(rows[:32], layer, h, samples)
        return timed(lambda: accumulate_hessian(rows, layer, h, samples))[1]

    def solve(self, weight: str, hessian: str, scale: str, n: int, k: int, codes: str) -> dict[str, Any]:
        options = QuantizationArgs(
            num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP, actorder="static"
        )
        # llm-compressor's own working copies: batches of one, float32, used up by the call
        w, h, s = (
            read(f, *size)[None]
            for f, size in ((weight, (n, k)), (hessian, (k, k)), (scale, (n, k // GROUP)))
        )
        zeros = torch.zeros(s.shape, dtype=torch.int8)
        (q, _, failed), took = timed(
            lambda: quantize_weight(w, h, s, zeros, None, options, blocksize=128, percdamp=0.01)
        )
        if failed.any():
            raise ValueError("it fell back to rounding to nearest")
        (q[0] / s[0].repeat_interleave(GROUP, 1)).round().numpy().tofile(codes)
        return took


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    torch.set_grad_enabled(False)
    serve(Session(), sys.stdin, answers)  # type: ignore[arg-type]
