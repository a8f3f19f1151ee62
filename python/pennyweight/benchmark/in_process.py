# SPDX-License-Identifier: Apache-2.0
"""Timing a model in this process, on our kernels where it is quantized.

One query: `generate` with a static cache, greedy, an exact number of tokens; a streamer sees each token come. On a card
transformers compiles the decoding step and captures it in a CUDA graph by itself, on a CPU it runs as it is.
Many: continuous batching of transformers, through its manager; each query's tokens carry their times.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pennyweight.benchmark.machine import free_memory
from pennyweight.benchmark.timing import Load, Query, load_of
from pennyweight.errors import MeasurementError
from pennyweight.swap import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: On a CPU: tokens of a cache block, tokens of one forward pass, and the share of free memory that caches may take.
#: transformers' own guesses are for cards: a cache of all memory takes a minute to allocate.
BLOCK, BATCH_TOKENS, MEMORY_SHARE = 32, 256, 0.5
#: Seconds after which continuous batching that finishes nothing is asked whether it still runs.
PATIENCE = 1.0


def query(model: PreTrainedModel, prompt: Sequence[int], tokens: int) -> Query:
    """Answer one prompt.

    Args:
        model: Of transformers.
        prompt: Token ids.
        tokens: Of the answer, exactly; an end token does not end it.
    """
    from transformers import GenerationConfig

    config: Any = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0,
        cache_implementation="static",
    )  # fmt: skip
    ids = torch.tensor([list(prompt)], device=model.device)
    clock = _Clock()
    with evaluating(model), torch.inference_mode():
        begin = time.perf_counter()
        made: Tensor = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=clock
        )
        end = time.perf_counter()
    if made.shape[1] != len(prompt) + tokens:
        raise MeasurementError(f"generate made {made.shape[1] - len(prompt)} tokens, {tokens} were asked for")
    first, last = clock.times[1], clock.times[-1]  # the prompt is put in first
    return Query(end - begin, first - begin, (last - first) / (tokens - 1) if tokens > 1 else None)


def load(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    kind: str,
    rate: float | None = None,
) -> Load:
    """Answer many prompts by continuous batching.

    Args:
        model: Of transformers.
        prompts: Token ids of each.
        tokens: Of each answer, exactly.
        kind: "synchronous", "rate" or "throughput".
        rate: Queries a second, for "rate".
    Raises:
        MeasurementError: The caches of one query do not fit into memory, or the engine fails.
    """
    from transformers import GenerationConfig

    config: Any = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    size = max(map(len, prompts)) + tokens
    with evaluating(model), torch.no_grad():
        manager: Any = model.init_continuous_batching(  # type: ignore[operator]
            generation_config=config, continuous_batching_config=_engine(model, size, len(prompts))
        )
        manager.warmup()  # makes the cache, and on a card its graphs
        manager.start()
        try:
            _answer(
                manager, [prompts[0][:8]], 2, "throughput", None
            )  # threads and buffers are there after it
            begin = time.perf_counter()
            queries = _answer(manager, prompts, tokens, kind, rate)
            return load_of(kind, rate, queries, time.perf_counter() - begin)
        finally:
            manager.stop(block=True, hard_stop=True)
            manager.destroy()


def _engine(model: PreTrainedModel, size: int, requests: int) -> Any:
    """Return the settings of continuous batching for queries of `size` tokens."""
    from transformers import ContinuousBatchingConfig

    shared: Any = {"allow_block_sharing": False, "max_requests_per_batch": requests}
    if model.device.type != "cpu":
        return ContinuousBatchingConfig(**shared)
    config = model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * model.dtype.itemsize
    each = -(-size // BLOCK)
    room = int(MEMORY_SHARE * free_memory()) // (token * BLOCK)
    if room < each + 1:
        raise MeasurementError(
            f"the cache of one query of {size} tokens takes {each * BLOCK * token / 2**20:.0f} MiB, "
            f"{room * BLOCK * token / 2**20:.0f} MiB are free for it; take shorter queries (--scale)"
        )
    blocks = min(requests * each + 1, room)
    return ContinuousBatchingConfig(
        block_size=BLOCK, num_blocks=blocks, max_batch_tokens=BATCH_TOKENS, **shared
    )


def _answer(
    manager: Any, prompts: Sequence[Sequence[int]], tokens: int, kind: str, rate: float | None
) -> list[Query]:
    waiting, running = deque(prompts), 0
    done: list[Query] = []
    begin = time.perf_counter()
    while len(done) < len(prompts):
        sent = len(prompts) - len(waiting)
        due = begin + sent / rate if rate else begin
        while waiting and (running == 0 or kind != "synchronous") and time.perf_counter() >= due:
            manager.add_request(
                list(waiting.popleft()), max_new_tokens=tokens, record_timestamps=True, eos_token_id=-1
            )
            running, sent = running + 1, sent + 1
            due = begin + sent / rate if rate else begin
        patience = min(PATIENCE, max(0.001, due - time.perf_counter())) if waiting and rate else PATIENCE
        found = manager.get_result(timeout=patience)
        if found is not None and found.is_finished():
            running -= 1
            done.append(_query(found, tokens))
        elif found is None and not manager.is_running():
            raise MeasurementError(
                f"continuous batching stopped by itself after {len(done)} of {len(prompts)} queries; its log says why"
            )
    return done


def _query(found: Any, tokens: int) -> Query:
    if found.error is not None or len(found.generated_tokens) != tokens:
        why = " ".join(str(found.error or f"it made {len(found.generated_tokens)} tokens").split())
        raise MeasurementError(f"continuous batching failed on a query of {tokens} new tokens: {why:.200}")
    first, last = found.timestamps[0], found.timestamps[-1]
    return Query(
        found.lifespan[1] - found.created_time, first - found.created_time,
        (last - first) / (tokens - 1) if tokens > 1 else None,
    )  # fmt: skip


class _Clock:
    """A streamer that notes when tokens come."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is held back."""
