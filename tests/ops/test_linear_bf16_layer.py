# SPDX-License-Identifier: Apache-2.0
"""LinearBF16 is the nn.Linear that it was made from: parameters, ties, gradients; and it says what runs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import transformers
from float_bounds import assert_within, exact_and_bound
from ops_reference import assert_same_bits
from torch import nn
from torch.nn import functional as F

import pennyweight as pw
from pennyweight import _C, linear_bf16

N, K = 70, 96


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(K, N, bias, dtype=torch.bfloat16)


class Tied(nn.Module):
    """An embedding and a head with one weight, as small Llamas have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(N, K, dtype=torch.bfloat16)
        self.lm_head = nn.Linear(K, N, bias=False, dtype=torch.bfloat16)
        self.lm_head.weight = self.embedding.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.embedding(ids))


def runs(op: str = "linear_bf16") -> int:
    return sum(_C.run_counts(op).values())


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_forward_is_the_linear_layer_on_our_kernel(bias: bool) -> None:
    plain = linear(bias)
    layer, before = pw.LinearBF16.of(plain), runs()
    for lead in ((K,), (1, 1, K), (2, 3, K), (0, K)):
        x = torch.randn(lead).bfloat16()
        y = layer(x)
        assert y.shape == plain(x).shape
        assert_within(y, *exact_and_bound("linear_bf16", (x, plain.weight, plain.bias), {}), str(lead))
    assert runs() == before + 3  # without rows nothing runs


def test_it_holds_the_same_parameters() -> None:
    plain = linear()
    layer = pw.LinearBF16.of(plain.eval())
    assert layer.weight is plain.weight
    assert layer.bias is plain.bias
    assert not layer.training
    assert list(layer.state_dict()) == list(plain.state_dict())
    layer.load_state_dict(linear().state_dict(), strict=True)


@torch.no_grad()
def test_place_keeps_what_is_tied_tied() -> None:
    model, ids = Tied(), torch.tensor([[3, 5, 8]])
    model.odd = nn.Sequential(nn.Linear(K, 2), nn.Linear(K, 2, dtype=torch.bfloat16))  # float32: not ours
    assert linear_bf16.place(model) == ["lm_head", "odd.1"]
    assert type(model.odd[0]) is nn.Linear
    assert model.lm_head.weight is model.embedding.weight
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.lm_head.weight is other.embedding.weight
        assert_same_bits(other(ids), model(ids))
    before = runs()
    model.embedding.weight.zero_()
    assert (model(ids) == 0).all()
    assert runs() == before + 1
    assert linear_bf16.place(model) == []


def test_gradients_are_those_of_the_linear_layer() -> None:
    plain = linear()
    layer, before = pw.LinearBF16.of(copy.deepcopy(plain)), runs()
    x = torch.randn(3, K).bfloat16()
    layer(x).sum().backward()
    plain(x).sum().backward()
    assert_same_bits(layer.weight.grad, plain.weight.grad)
    layer.requires_grad_(False)
    y = layer(x.requires_grad_())
    assert y.requires_grad
    assert runs() == before
    layer(x.detach())
    assert runs() == before + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_another_dtype_goes_to_torch_and_explain_says_so(dtype: torch.dtype) -> None:
    net = nn.Sequential(pw.LinearBF16.of(linear())).to(dtype)
    x, before = torch.randn(2, K).to(dtype), runs()
    assert_same_bits(net(x), F.linear(x, net[0].weight, net[0].bias))
    assert runs() == before
    group = pw.explain(net).groups[0]
    name = str(dtype).removeprefix("torch.")
    assert (group.decode, group.prefill, group.dtype) == ("torch", "torch", name)
    assert group.why_not["linear_bf16"] == f"weight is {name}, not bfloat16"


@torch.no_grad()
def test_explain_names_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(pw.LinearBF16.of(linear()), nn.Linear(3, 3)).requires_grad_(False)
    monkeypatch.setattr(linear_bf16, "MOST_ROWS", 8)
    for rows, ours in ((1, True), (8, True), (9, False)):
        before = runs()
        net[0](torch.randn(rows, K).bfloat16())
        assert runs() == before + ours
    found = pw.explain(net)
    assert [g.layers for g in found.groups] == [["0"]]
    assert found.plain == ["1"]
    assert (found.groups[0].decode, found.groups[0].prefill) == (_C.last_run("linear_bf16"), "torch")
    assert "more than 8 rows" in str(found)
    monkeypatch.setattr(linear_bf16, "MOST_ROWS", None)
    assert pw.explain(net).groups[0].prefill == _C.last_run("linear_bf16")


def test_explain_says_that_gradients_are_torchs() -> None:
    assert "while gradients are recorded: torch" in str(pw.explain(pw.LinearBF16.of(linear())))


def test_wrong_width_is_refused() -> None:
    layer = pw.LinearBF16.of(linear()).requires_grad_(False)
    with pytest.raises(pw.ShapeError, match=r"must have the same K; got x: \[2, 95\]"):
        layer(torch.zeros(2, K - 1, dtype=torch.bfloat16))


@torch.no_grad()
def test_compiles_to_one_graph_with_the_same_bits() -> None:
    layer = pw.LinearBF16.of(linear())
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for m in (1, 2, 17):
        x = torch.randn(m, K).bfloat16()
        assert_same_bits(compiled(x), layer(x))


def test_fused_model_has_its_head_on_our_kernel() -> None:
    config = transformers.LlamaConfig(
        vocab_size=N, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    pw.quantize(model, "W8A8-FP", progress=False, fuse=True)
    assert isinstance(model.lm_head, pw.LinearBF16)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    before = runs()
    ids = model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert ids.shape == (1, 5)
    assert runs() == before + 2
    assert ["lm_head"] in [g.layers for g in pw.explain(model).groups]
