# SPDX-License-Identifier: Apache-2.0
"""Fused blocks decode on our own attention where it computes what the model's does, and nowhere else."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from fused import RECIPES, assert_alike, greedy, pair
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, StaticCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import pennyweight as pw
from pennyweight import _C
from pennyweight.fuse import fuse_model

OURS = ["Llama", "Qwen2", "Mistral"]  # Qwen3 normalizes q and k


def runs() -> int:
    """Runs of our attention until now."""
    return sum(_C.run_counts("attention_decode").values())


def plain(model: Any) -> Any:
    """A copy of a fused model that decodes by its attention modules."""
    other = copy.deepcopy(model)
    for block in other.model.layers:
        block.fusion = dataclasses.replace(block.fusion, decoding=None)
    return other


def in_steps(model: Any) -> Any:
    """A copy of a fused model whose blocks decode op by op."""
    other = copy.deepcopy(model)
    for block in other.model.layers:
        block.fusion = dataclasses.replace(block.fusion, whole=False)
    return other


@pytest.fixture
def blocks_in_two_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the calls of a block's halves."""
    called: list[str] = []

    def noted(name: str, op: Any, *args: Any) -> Any:
        called.append(name)
        return op(*args)

    for name in ("decode_front", "decode_back"):
        monkeypatch.setattr(pw.ops, name, partial(noted, name, getattr(pw.ops, name)))
    return called


def continued(
    model: Any, ids: torch.Tensor, mask: torch.Tensor | None = None, prompt: int = 5
) -> torch.Tensor:
    """Logits of each position after a prompt, a token at a time."""
    cache, out = None, []
    with torch.no_grad():
        for begin, end in [(0, prompt), *((i, i + 1) for i in range(prompt, ids.shape[1]))]:
            where = None if mask is None else mask[:, :end]
            got = model(ids[:, begin:end], attention_mask=where, past_key_values=cache, use_cache=True)
            cache = got.past_key_values
            out.append(got.logits[:, -1:])
    return torch.cat(out, 1)


def in_static_cache(model: Any, ids: torch.Tensor, step: Any = None) -> torch.Tensor:
    """Logits of a token after a prompt of eight; `step` takes the model's place for that token."""
    tokens, cache = ids[:1].repeat(1, 2)[:, :9], StaticCache(config=model.config, max_cache_len=32)
    with torch.no_grad():
        model(tokens[:, :8], past_key_values=cache)
        last = model if step is None else step
        out: torch.Tensor = last(tokens[:, 8:], past_key_values=cache).logits
    return out


@pytest.mark.parametrize("family", OURS)
@pytest.mark.parametrize("scheme", RECIPES)
def test_decoding_answers_as_the_attention_module(
    scheme: str, family: str, make_model: Any, ids: torch.Tensor
) -> None:
    _, fused = pair(make_model, scheme, family)
    tokens = ids[:2].repeat(1, 3)[:, :24]  # past Mistral's window of 16
    before = runs()
    got = continued(fused, tokens)
    assert runs() - before == 2 * 19
    want = continued(plain(fused), tokens)
    assert runs() - before == 2 * 19
    assert_alike(got, want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("scheme", RECIPES)
def test_decoding_in_16_bits_is_as_near_to_float32_as_the_attention_module(
    scheme: str, dtype: torch.dtype, make_model: Any, ids: torch.Tensor
) -> None:
    _, fused = pair(make_model, scheme, "Llama", dtype)
    tokens = ids[:4].repeat(1, 3)[:, :24]
    before = runs()
    ours, modules = continued(fused, tokens), continued(plain(fused), tokens)
    assert runs() - before == 2 * 19
    exact = continued(plain(fused).float(), tokens)
    off, usual = ((logits.float() - exact).square().mean().sqrt() for logits in (ours, modules))
    assert off < 1.3 * usual < 0.3 * exact.square().mean().sqrt()  # of 7,000 logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", OURS)  # Qwen2 has biases
@pytest.mark.parametrize("scheme", RECIPES)
def test_a_block_in_two_calls_has_the_bits_of_its_ops(
    scheme: str,
    family: str,
    dtype: torch.dtype,
    make_model: Any,
    ids: torch.Tensor,
    blocks_in_two_calls: list[str],
) -> None:
    _, fused = pair(make_model, scheme, family, dtype)
    tokens, mask = ids[:2].repeat(1, 3)[:, :14], torch.ones(2, 14, dtype=torch.long)
    mask[0, :2] = 0
    want = continued(in_steps(fused), tokens), continued(in_steps(fused), tokens, mask)
    assert blocks_in_two_calls == []
    got = continued(fused, tokens), continued(fused, tokens, mask)
    assert blocks_in_two_calls == ["decode_front", "decode_back"] * 2 * 9 * 2
    for one, two in zip(got, want, strict=True):
        assert torch.equal(one, two)


def test_who_listens_to_a_layer_of_a_decoding_block_is_called(
    make_model: Any, ids: torch.Tensor, blocks_in_two_calls: list[str]
) -> None:
    _, fused = pair(make_model, "W4A16-INT", "Llama")
    seen = []
    block = fused.model.layers[1]
    for layer in (block.self_attn.o_proj, block.mlp.down_proj):
        handle = layer.register_forward_hook(lambda *_: seen.append(1))
        continued(fused, ids[:1, :8])
        handle.remove()
    assert len(seen) == 2 * 4  # a prompt and three tokens
    assert len(blocks_in_two_calls) == 2 * 2 * 3  # of the other block


@pytest.mark.parametrize("ignored", ["re:.*o_proj", "re:.*down_proj"])
def test_a_block_with_a_layer_of_the_models_own_decodes_op_by_op(
    ignored: str, make_model: Any, ids: torch.Tensor, blocks_in_two_calls: list[str]
) -> None:
    model = make_model("Llama")
    recipe = dataclasses.replace(RECIPES["W8A8-INT"], ignore=("lm_head", ignored))
    pw.quantize(model, recipe, progress=False)
    fuse_model(model)
    tokens = ids[:1].repeat(1, 2)[:, :10]
    before = runs()
    got = continued(model, tokens)
    assert runs() - before == 2 * 5 and blocks_in_two_calls == []
    assert_alike(got, continued(plain(model), tokens))


def test_padded_sequences_decode_as_they_do_alone(make_model: Any, ids: torch.Tensor) -> None:
    _, fused = pair(make_model, "W4A16-INT", "Llama")
    tokens = ids[:2].repeat(1, 3)[:, :12]
    padded = tokens.clone()
    padded[0, :3] = 0
    mask = torch.ones_like(padded)
    mask[0, :3] = 0
    before = runs()
    got = continued(fused, padded, mask)
    assert runs() - before == 2 * 7
    alone = [continued(plain(fused), tokens[:1, 3:], prompt=2), continued(plain(fused), tokens[1:])]
    assert_alike(got, torch.cat(alone))


def test_static_cache_decodes_on_our_attention(make_model: Any, ids: torch.Tensor) -> None:
    _, fused = pair(make_model, "W8A8-INT", "Llama")
    before = runs()
    got = in_static_cache(fused, ids)
    assert runs() - before == 2
    assert_alike(got, in_static_cache(plain(fused), ids))


@pytest.mark.parametrize("scheme", RECIPES)
def test_decoding_compiles_to_one_graph(
    scheme: str, make_model: Any, ids: torch.Tensor, blocks_in_two_calls: list[str]
) -> None:
    _, fused = pair(make_model, scheme, "Llama")
    torch._dynamo.reset()
    want = in_static_cache(fused, ids)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    assert torch.equal(in_static_cache(fused, ids, compiled), want)
    assert blocks_in_two_calls == ["decode_front", "decode_back"] * 2 * 2


def test_generation_with_beams_is_the_unfused_one(make_model: Any, ids: torch.Tensor) -> None:
    model, fused = pair(make_model, "W4A16-INT", "Qwen2")
    assert torch.equal(greedy(fused, ids[:2], num_beams=3), greedy(model, ids[:2], num_beams=3))


def test_who_listens_to_attention_is_served_by_its_module(make_model: Any, ids: torch.Tensor) -> None:
    _, fused = pair(make_model, "W8A8-FP", "Llama")
    seen = []
    attention = fused.model.layers[0].self_attn
    handle = attention.register_forward_hook(lambda *_: seen.append(1))
    before = runs()
    continued(fused, ids[:1, :8])
    assert len(seen) == 4 and runs() - before == 3  # of the other block
    handle.remove()
    fused.set_attn_implementation("eager")
    before = runs()
    continued(fused, ids[:1, :8])
    with torch.no_grad():
        assert fused(ids[:1], output_attentions=True).attentions is not None
    assert runs() == before


def test_another_attention_function_is_not_replaced(make_model: Any, ids: torch.Tensor) -> None:
    called = []

    def own(module: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(1)
        return sdpa_attention_forward(module, *args[:3], None, *args[4:], **kwargs)

    AttentionInterface.register("own", own)
    AttentionMaskInterface.register("own", lambda *_, **__: object())  # flex_attention's is no tensor either
    _, fused = pair(make_model, "W8A8-INT", "Llama")
    fused.set_attn_implementation("own")
    before = runs()
    continued(fused, ids[:1, :8])
    assert len(called) == 2 * 4 and runs() == before


def without(name: str, changed: Any) -> type[nn.Module]:
    """An attention module that computes something else."""
    from transformers.models.llama import modeling_llama

    class Other(modeling_llama.LlamaAttention):
        def forward(self, hidden_states: Any, **kwargs: Any) -> Any:
            return changed(super().forward, self, hidden_states, kwargs)

    Other.__name__ = name
    return Other


def scaled(forward: Any, module: Any, x: torch.Tensor, kwargs: dict[str, Any]) -> Any:
    y, weights = forward(x, **kwargs)
    return y * 2, weights


def unrotated(forward: Any, module: Any, x: torch.Tensor, kwargs: dict[str, Any]) -> Any:
    cos, sin = kwargs.pop("position_embeddings")
    return forward(x, position_embeddings=(torch.ones_like(cos), torch.zeros_like(sin)), **kwargs)


def twice(forward: Any, module: Any, x: torch.Tensor, kwargs: dict[str, Any]) -> Any:
    forward(x, **kwargs)
    return forward(x, **kwargs)


class _Hotter(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            args = (args[0] * 2, *args[1:])
        return func(*args, **(kwargs or {}))


def hotter(forward: Any, module: Any, x: torch.Tensor, kwargs: dict[str, Any]) -> Any:
    with _Hotter():
        return forward(x, **kwargs)


def asks(forward: Any, module: Any, x: torch.Tensor, kwargs: dict[str, Any]) -> Any:
    if kwargs.get("past_key_values") is not None:
        kwargs["past_key_values"].get_seq_length()  # of a cache that knows only to be updated
    return forward(x, **kwargs)


@pytest.mark.parametrize("changed", [scaled, unrotated, twice, hotter, asks])
def test_attention_that_computes_something_else_keeps_its_module(
    changed: Any, make_model: Any, ids: torch.Tensor
) -> None:
    model = make_model("Llama")
    for block in model.model.layers:
        block.self_attn.__class__ = without(changed.__name__, changed)
    pw.quantize(model, RECIPES["W8A8-INT"], progress=False)
    fuse_model(model)
    assert all(block.fusion.attention and block.fusion.decoding is None for block in model.model.layers)
    before = runs()
    continued(model, ids[:1, :8])
    assert runs() == before


def test_other_scales_are_taken_over(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model("Llama")
    for block in model.model.layers:
        block.self_attn.scaling = 0.1
    pw.quantize(model, RECIPES["W4A16-INT"], progress=False)
    fuse_model(model)
    assert [block.fusion.decoding.scale for block in model.model.layers] == [0.1, 0.1]
    tokens = ids[:1].repeat(1, 2)[:, :10]
    assert_alike(continued(model, tokens), continued(plain(model), tokens))


def test_normed_queries_keep_their_module(make_model: Any) -> None:
    _, fused = pair(make_model, "W8A8-INT", "Qwen3")
    assert all(block.fusion.decoding is None for block in fused.model.layers)


def test_explain_says_which_blocks_decode_on_our_attention(make_model: Any) -> None:
    _, fused = pair(make_model, "W8A8-INT", "Llama")
    names = ["model.layers.0", "model.layers.1"]
    assert pw.explain(fused).decoding == names
    assert "decode on an attention of ours: model.layers.0, model.layers.1" in str(pw.explain(fused))
    assert pw.explain(fused.to("meta")).decoding == []
    _, other = pair(make_model, "W8A8-INT", "Qwen3")
    assert pw.explain(other).fused == names and pw.explain(other).decoding == []
    assert "decode on" not in str(pw.explain(other))
