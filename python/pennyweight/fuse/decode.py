# SPDX-License-Identifier: Apache-2.0
"""Attention of a fused block while it decodes: one token per sequence, on our own ops.

    q|k|v ─▶ rotary ─▶ the model's cache ─▶ attention_decode ─▶ o

torch's attention on CPUs is made for prompts; for one token it takes as long as the block's linear layers once some
hundred tokens are cached. Prompts, cards, and attention modules that compute anything else keep their own forward:
what a module computes is seen, on three tokens, and not believed by its name (`examine`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pennyweight import ops


@dataclass(frozen=True)
class Decoding:
    """What an attention module computes, all sizes of it.

    Attributes:
        heads: Of queries.
        kv_heads: Of keys and values.
        head_dim: Columns of a head.
        scale: Of scores.
        layer: The module's place in the cache.
        settings: The config's name for the attention that was seen; another one is not replaced.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    layer: int
    settings: str

    def takes(self, attention: Any, x: Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether a call is of one token per sequence with a cache, and nobody listens to the module."""
        mask, where = kwargs.get("attention_mask"), kwargs.get("position_embeddings")
        return (
            x.dim() == 3
            and x.shape[1] == 1
            and x.device.type == "cpu"
            and kwargs.get("past_key_values") is not None
            and isinstance(where, tuple)
            and where[0].dtype == where[1].dtype == x.dtype
            and _settings(attention) == self.settings
            and (mask is None or (mask.dtype == torch.bool and mask.shape[:3] == (x.shape[0], 1, 1)))
            and unheard(attention)
        )

    def cached(
        self, keys: Tensor, values: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values (B, kv_heads, 1, D) go into the cache → all of them, and which count (None: all)."""
        keys, values = kwargs["past_key_values"].update(keys, values, self.layer)
        mask = kwargs.get("attention_mask")
        return keys, values, None if mask is None else mask[:, 0, 0, : keys.shape[2]]

    def attend(self, qkv: Tensor, begin: int, kwargs: dict[str, Any]) -> Tensor:
        """The joint output of q, k and v, of which v begins at a column → what o takes, (B, 1, heads · D)."""
        q_end, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        turned = ops.rotary(qkv[..., : q_end + kv], *kwargs["position_embeddings"])
        shape = (qkv.shape[0], self.kv_heads, 1, self.head_dim)
        keys, values = turned[..., q_end:].view(shape), qkv[..., begin : begin + kv].view(shape)
        keys, values, counts = self.cached(keys, values, kwargs)
        return ops.attention_decode(turned[..., :q_end], keys, values, self.scale, counts)


def unheard(module: Any) -> bool:
    """Whether nothing happens when a module is called but its class's forward: no hooks, no other forward."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def _settings(attention: Any) -> str | None:
    name: str | None = getattr(getattr(attention, "config", None), "_attn_implementation", None)
    return name


class _Cache:
    """What an attention module hands to a cache."""

    def __init__(self) -> None:
        self.updates: list[tuple[Any, ...]] = []

    def update(self, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.updates.append((keys, values, args, kwargs))
        return keys, values


class _Attentions(TorchFunctionMode):
    """The calls of torch's attention while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any], Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is functional.scaled_dot_product_attention:
            self.calls.append((args, kwargs or {}, out))
        return out


def examine(
    attention: Any, kwargs: dict[str, Any], q: Tensor, k: Tensor, v: Tensor, y: Tensor
) -> Decoding | None:
    """Find what an attention module computes; it runs once more.

    Args:
        attention: The module.
        kwargs: Of its call, on a few tokens of one sequence.
        q: What its q_proj gave then, (1, T, heads · D); q_proj, k_proj and v_proj must give the same once more.
        k: What k_proj gave.
        v: What v_proj gave.
        y: The module's own result.
    Returns:
        None where `Decoding.attend` would compute something else.
    """
    where, settings = kwargs.get("position_embeddings"), _settings(attention)
    if settings is None or not isinstance(where, tuple) or len(where) != 2 or q.shape[-1] % 64 != 0:
        return None
    cache, attentions = _Cache(), _Attentions()
    with attentions:
        again = attention(**{**kwargs, "past_key_values": cache})
    if len(attentions.calls) != 1 or len(cache.updates) != 1:
        return None
    (keys, values, (layer, *more), named), (args, given, out) = cache.updates[0], attentions.calls[0]
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    sdpa = {**dict(zip(names, args, strict=False)), **given}
    query, d = sdpa["query"], keys.shape[-1]
    scale = sdpa.get("scale")
    scale = d**-0.5 if scale is None else float(scale)
    found = Decoding(query.shape[1], keys.shape[1], d, scale, layer, settings)
    groups = found.heads // found.kv_heads
    same = (
        not more
        and not named
        and not sdpa.get("dropout_p")
        and torch.equal(query, _turned(q, where, d))
        and torch.equal(keys, _turned(k, where, d))
        and torch.equal(values, _heads(v, d))
        and _is(sdpa["key"], keys, groups)
        and _is(sdpa["value"], values, groups)
        and torch.equal(again[0], y)
        and torch.equal(attention.o_proj(out.transpose(1, 2).flatten(2)), y)
    )
    return found if same else None


def _heads(x: Tensor, d: int) -> Tensor:
    return x.view(*x.shape[:-1], -1, d).transpose(1, 2)


def _turned(x: Tensor, where: tuple[Tensor, Tensor], d: int) -> Tensor:
    heads = _heads(x, d)
    cos, sin = where[0].unsqueeze(1), where[1].unsqueeze(1)
    if cos.shape[-1] != d:
        return heads.new_empty(0)
    first, second = heads.chunk(2, -1)
    turned: Tensor = heads * cos + torch.cat((-second, first), -1) * sin
    return turned


def _is(got: Tensor, want: Tensor, groups: int) -> bool:
    """Whether heads are what they should be, repeated for each query head or not."""
    return torch.equal(got, want) or torch.equal(got, want.repeat_interleave(groups, 1))
