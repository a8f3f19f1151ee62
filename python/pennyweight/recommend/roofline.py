# SPDX-License-Identifier: Apache-2.0
"""How long a query takes where nobody measured it: bytes over bandwidth, operations over peak, layer by layer.

A step (the prompt, or one token of every answer in flight) takes, on the GPUs of one node,

    max(linear operations / peak, weight and activation bytes / bandwidth)      tensor parallel: n shares of each
    + attention's operations / peak (prompt) or KV bytes / bandwidth (token)
    + bytes of 2 all-reduces a layer / link
    + layers · overhead

Linear layers compute at the peak of their activations' type (FP8, INT8; W4A16: 16 bits); LM head, attention and KV
cache are 16-bit in every format. More nodes than one stand one behind the other (pipeline parallel): one query is not
served faster by them, many queries keep all of them busy. B queries in flight:

    seconds per query = prompt + answer tokens · step(B) / B,      throughput = 1 / that,      latency = B · that

Three constants are fitted to the study's tables (`fit`): which share of bandwidth and of peak is reached, and the
overhead of a layer. What is assumed and not fitted: vLLM's 90 % of memory for weights and KV cache, 256 queries in
flight at most, prompts batched up to 2048 tokens.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

from pennyweight.recommend.gpus import DATA, Gpu
from pennyweight.recommend.shapes import WORD_BYTES, Shape
from pennyweight.use_cases import UseCase

#: vLLM's defaults: share of memory used, queries in flight, tokens of a batch of prompts.
MEMORY_SHARE = 0.9
IN_FLIGHT = 256
BATCH_TOKENS = 2048
#: GPU counts that are looked at.
COUNTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Constants:
    """What is fitted.

    Attributes:
        bandwidth: Share of the memory's bandwidth that is reached.
        peak: Share of the peak that is reached.
        overhead: Seconds that a layer costs in a step besides.
    """

    bandwidth: float
    peak: float
    overhead: float


@dataclass(frozen=True)
class Roofline:
    """A model in a format on n GPUs.

    Attributes:
        shape: The model's sizes.
        gpu: What it runs on.
        gpus: How many of them.
        format: "BF16" or a scheme.
        constants: None: those fitted to the study's tables.
    """

    shape: Shape
    gpu: Gpu
    gpus: int
    format: str
    constants: Constants | None = None

    @property
    def tensor_parallel(self) -> int:
        return min(self.gpus, self.gpu.node)

    @property
    def nodes(self) -> int:
        return -(-self.gpus // self.gpu.node)

    def seconds(self, case: UseCase, in_flight: int = 1) -> float:
        """Return seconds per query with so many in flight; for one, its latency."""
        busy = min(self.nodes, in_flight)  # nodes at work at the same time
        each = in_flight / busy
        prompts = max(1.0, min(each, BATCH_TOKENS / case.prefill))
        prefill = self._prompt(case.prefill, prompts) / (prompts * busy)
        return prefill + case.decode * self._token(each, case.prefill + case.decode / 2) / in_flight

    def latency(self, case: UseCase, in_flight: int = 1) -> float:
        """Return seconds from end to end of a query."""
        return in_flight * self.seconds(case, in_flight)

    def throughput(self, case: UseCase, in_flight: int) -> float:
        """Return queries a second."""
        return 1 / self.seconds(case, in_flight)

    def in_flight(self, case: UseCase) -> int:
        """Return how many queries the memory holds at once, at most vLLM's 256; 0: not even one."""
        free = MEMORY_SHARE * self.gpus * self.gpu.memory - self.shape.weight_bytes(self.format)
        if free < case.tokens * self.shape.kv_bytes:
            return 0
        return max(1, min(IN_FLIGHT, int(free / ((case.prefill + case.decode / 2) * self.shape.kv_bytes))))

    def _prompt(self, tokens: int, prompts: float) -> float:
        """One step over so many prompts."""
        shape, n = self.shape, self.tensor_parallel
        attention = 2 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * tokens**2
        return (
            self._linear(prompts * tokens, prompts)
            + prompts * attention / (n * self._reached.peak * self.gpu.peaks["bf16"])
            + self._reduce(prompts * tokens)
            + self._overhead
        )

    def _token(self, queries: float, context: float) -> float:
        """One token of each query, all nodes passed."""
        kv = queries * context * self.shape.kv_bytes
        return (
            self._linear(queries, queries)
            + kv / (self.tensor_parallel * self._reached.bandwidth * self.gpu.bandwidth)
            + self._reduce(queries)
            + self._overhead
        )

    def _linear(self, tokens: float, answers: float) -> float:
        """Linear layers on `tokens`, LM head on `answers`; arithmetic and traffic overlap."""
        n, reached = self.tensor_parallel, self._reached
        compute = 2 * self.shape.linear * tokens / self.gpu.peak(self.format)
        compute += 2 * self.shape.head * answers / self.gpu.peaks["bf16"]
        traffic = self.shape.read_bytes(self.format) + tokens * self.shape.activation_bytes
        return max(compute / reached.peak, traffic / (reached.bandwidth * self.gpu.bandwidth)) / n

    def _reduce(self, tokens: float) -> float:
        """Two ring all-reduces a layer."""
        n = self.tensor_parallel
        sent = 2 * (n - 1) / n * tokens * self.shape.hidden_size * WORD_BYTES
        return 2 * self.shape.num_hidden_layers * sent / self.gpu.link

    @property
    def _overhead(self) -> float:
        return self.shape.num_hidden_layers * self._reached.overhead

    @property
    def _reached(self) -> Constants:
        return self.constants or fitted().constants


@dataclass(frozen=True)
class Fitted:
    """The constants, and how far the model is off on rows that they were not fitted to.

    Attributes:
        constants: Of all rows.
        errors: By "sync" and "async": median, largest (as factors above 1) of the study's cells.
        order: By "sync" and "async": how often the order of formats is right, of how many.
    """

    constants: Constants
    errors: dict[str, tuple[float, float]]
    order: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        parts = [
            f"{name} within {100 * (median - 1):.0f} % in half of the study's cells and a factor of {largest:.1f} "
            f"in all, order of formats right in {self.order[mode][0]} of {self.order[mode][1]}"
            for mode, name in (("sync", "latencies"), ("async", "throughputs"))
            for median, largest in (self.errors[mode],)
        ]
        return f"Roofline model, each GPU and model of the study withheld from the fit: {'; '.join(parts)}"


@functools.cache
def fitted() -> Fitted:
    """Return the constants fitted to the study's tables and their errors, from data/roofline.json."""
    raw = json.loads((DATA / "roofline.json").read_text(encoding="utf-8"))
    return Fitted(
        Constants(**raw["constants"]),
        {mode: (two[0], two[1]) for mode, two in raw["errors"].items()},
        {mode: (two[0], two[1]) for mode, two in raw["order"].items()},
    )
