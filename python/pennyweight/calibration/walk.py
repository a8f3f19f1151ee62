# SPDX-License-Identifier: Apache-2.0
"""Walk a decoder block by block with cached activations, so that a model is never run as a whole.

    ids ──embedding part──► inputs of block 0 ──block 0──► inputs of block 1 ──block 1──► ...

The model is called once per batch with every block replaced by one that hands its input on and notes what
else it is called with (masks, position embeddings; they differ from block to block where attention is
windowed).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pennyweight import ops
from pennyweight.errors import CalibrationError, UnsupportedError

#: Tokens that go through a block together; more gains nothing on a CPU and costs memory.
BATCH_TOKENS = 4096


@dataclass
class Batch:
    """Some rows on their way: what the next block takes.

    Attributes:
        hidden: (rows, length, hidden size).
        calls: For each block the other arguments it is called with, positional and named.
    """

    hidden: Tensor
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    def run(self, block: nn.Module, index: int) -> Tensor:
        """Return the output of block number `index` (or of what took its place)."""
        args, kwargs = self.calls[index]
        out = block(self.hidden, *args, **kwargs)
        return out if isinstance(out, Tensor) else out[0]


@dataclass
class Inputs:
    """What is known of one activation tensor that linear layers of a block read.

    Attributes:
        readers: Names of the layers, in the order of their calls.
        producer: Name of the watched module whose output it is, if any.
        hessian: (K, K) float32, lower triangle of the sum of x x^T over tokens; None unless asked for.
        low, high: (K,) float32, smallest and largest value of each channel; None unless asked for.
        tokens: Tokens seen.
    """

    readers: list[str] = field(default_factory=list)
    producer: str | None = None
    hessian: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None
    tokens: int = 0

    def add(self, x: Tensor, hessian: bool, ranges: bool) -> None:
        """Take in activations (..., K)."""
        rows = x.detach().reshape(-1, x.shape[-1])
        self.tokens += rows.shape[0]
        if hessian:
            if self.hessian is None:
                self.hessian = torch.zeros(rows.shape[1], rows.shape[1], device=rows.device)
            ops.hessian_accumulate(self.hessian, rows)
        if ranges:
            if self.low is None or self.high is None:
                self.low = torch.full((rows.shape[1],), torch.inf, device=rows.device)
                self.high = torch.full((rows.shape[1],), -torch.inf, device=rows.device)
            ops.column_range(rows, self.low, self.high)

    def check_finite(self, block: str) -> None:
        """Raise CalibrationError where an activation was NaN or Inf: its square is on the diagonal, its
        value a range.
        """
        seen = [
            t
            for t in (self.hessian.diagonal() if self.hessian is not None else None, self.low, self.high)
            if t is not None
        ]
        if not all(bool(t.isfinite().all()) for t in seen):
            raise CalibrationError(
                f"calibration: NaN or Inf in the activations that {block}.{self.readers[0]} reads; the model "
                f"overflows on this data: load it in bfloat16 or float32, or find the module that makes them"
            )


def block_inputs(
    model: nn.Module, blocks: nn.ModuleList, ids: Tensor, device: torch.device | None = None
) -> list[Batch]:
    """Run the part of a model before its blocks, and note how each block is called.

    Args:
        model: A causal language model (or its base model), all on one device.
        blocks: Its decoder blocks.
        ids: (n, length) int64.
        device: Where the blocks will run: what they take is put there. None: where the model is.
    """
    rows = max(1, BATCH_TOKENS // ids.shape[1])
    home = next(model.parameters()).device
    batches: list[Batch] = []
    for part in torch.split(ids.to(home), rows):
        batch = _capture(model, blocks, part)
        moved: dict[Tensor, Tensor] = {}
        batch = Batch(_on(device or home, batch.hidden, moved), _on(device or home, batch.calls, moved))
        if batches and batches[0].hidden.shape == batch.hidden.shape:
            batch.calls = [_shared(new, old) for new, old in zip(batch.calls, batches[0].calls, strict=True)]
        batches.append(batch)
    return batches


def gather(
    block: nn.Module,
    name: str,
    index: int,
    batches: Iterable[Batch],
    names: dict[nn.Module, str],
    watched: dict[nn.Module, str],
    *,
    hessian: bool,
    ranges: bool,
) -> dict[str, Inputs]:
    """Run a block over all batches and gather what its linear layers read.

    Layers that are called with the same tensor (q, k and v; gate and up) share one `Inputs`.

    Args:
        block: The block, number `index` of the model, where it is called `name`.
        batches: Its inputs; left as they are.
        names: The layers to watch, and the names for them.
        watched: Modules whose outputs are recognized as some layer's input.
        hessian, ranges: What to gather.
    Returns:
        `Inputs` by layer name; a layer that was not called is missing.
    Raises:
        CalibrationError: NaN or Inf in an activation, by module.
    """
    found: dict[str, Inputs] = {}
    seen: dict[
        Any, tuple[Tensor, Inputs | str]
    ] = {}  # this batch's tensors, kept alive so that addresses stay unique

    def on_input(module: nn.Module, args: tuple[Any, ...]) -> None:
        x, layer = args[0], names[module]
        if not x.numel():
            return
        _, known = seen.get(_key(x), (x, None))
        if isinstance(known, Inputs):
            _join(found, layer, known)
            return
        inputs = found.setdefault(layer, Inputs([layer]))
        inputs.producer = known if known is not None else inputs.producer
        seen[_key(x)] = x, inputs
        inputs.add(x, hessian, ranges)

    def on_output(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(out, Tensor):
            seen[_key(out)] = out, watched[module]

    with ExitStack() as hooks:
        for module in names:
            hooks.callback(module.register_forward_pre_hook(on_input).remove)
        for module in watched:
            hooks.callback(module.register_forward_hook(on_output).remove)
        for batch in batches:
            batch.run(block, index)
            seen.clear()
    for inputs in found.values():
        inputs.check_finite(name)
    return found


class _Captured(Exception):
    """Every block's call has been noted; the rest of the model need not run."""


def _capture(model: nn.Module, blocks: nn.ModuleList, ids: Tensor) -> Batch:
    batch = Batch(torch.empty(0), [])

    def note(*args: Any, **kwargs: Any) -> Tensor:
        hidden: Tensor = args[0] if args else kwargs.pop("hidden_states")
        if not batch.calls:
            batch.hidden = hidden
        batch.calls.append((args[1:], kwargs))
        if len(batch.calls) == len(blocks):
            raise _Captured
        return hidden

    with _forwards(blocks, note):
        try:
            model(input_ids=ids, use_cache=False)
        except _Captured:
            return batch
    raise UnsupportedError(
        f"calibration: {type(model).__name__} did not call its {len(blocks)} decoder blocks in a row"
    )


@contextmanager
def _forwards(blocks: nn.ModuleList, forward: Any) -> Iterator[None]:
    """Let every block run `forward` for a while."""
    own = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.__dict__["forward"] = forward
        yield
    finally:
        for block, before in zip(blocks, own, strict=True):
            if before is None:
                block.__dict__.pop("forward", None)
            else:
                block.__dict__["forward"] = before


def _join(found: dict[str, Inputs], name: str, inputs: Inputs) -> None:
    """Let `name` share the inputs of another layer; it must have done so from the first batch on."""
    if found.setdefault(name, inputs) is not inputs:
        raise UnsupportedError(
            f"calibration: {name} reads the same tensor as {inputs.readers[0]} in some batches only; "
            f"leave it out with ignore="
        )
    if name not in inputs.readers:
        inputs.readers.append(name)


def _key(x: Tensor) -> tuple[Any, ...]:
    return x.data_ptr(), tuple(x.shape), x.stride()


def _on(device: torch.device, value: Any, moved: dict[Tensor, Tensor]) -> Any:
    """What a block is called with, its tensors on a device; a tensor that several calls share stays one."""
    if isinstance(value, Tensor):
        if value not in moved:
            moved[value] = value.to(device)
        return moved[value]
    if type(value) in (tuple, list):
        return type(value)(_on(device, v, moved) for v in value)
    if isinstance(value, dict):
        return {key: _on(device, v, moved) for key, v in value.items()}
    return value


def _shared(new: Any, old: Any) -> Any:
    """Return `old` in place of every equal tensor of `new`: batches then hold one mask."""
    if isinstance(new, Tensor):
        same = isinstance(old, Tensor) and new.dtype == old.dtype and torch.equal(new, old)
        return old if same else new
    if isinstance(new, tuple) and isinstance(old, tuple) and len(new) == len(old):
        return tuple(_shared(a, b) for a, b in zip(new, old, strict=True))
    if isinstance(new, dict) and isinstance(old, dict) and new.keys() == old.keys():
        return {key: _shared(new[key], old[key]) for key in new}
    return new
