# SPDX-License-Identifier: Apache-2.0
"""What cannot be fused is left as it is, and `explain` says why."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from families import SIZES
from fused import RECIPES, assert_alike, pair
from torch import nn

import pennyweight as pw
from pennyweight.fuse import FusedBlock, fuse_model
from pennyweight.quantize_layer import quantize_layer
from pennyweight.swap import replace_module


def quantized(make_model: Any, *args: Any, scheme: str = "W8A8-INT", **kwargs: Any) -> Any:
    model = make_model(*args, **kwargs)
    pw.quantize(model, RECIPES[scheme], progress=False)
    return model


def fused_and_same(model: Any, ids: torch.Tensor) -> dict[str, str]:
    """Fuse a copy; it must answer as before, and `explain` must give every reason."""
    fused = copy.deepcopy(model)
    reasons = fuse_model(fused)
    with torch.no_grad():
        assert_alike(fused(ids).logits, model(ids).logits)
    found = pw.explain(fused)
    assert found.unfused == reasons
    assert all(
        f"left unfused: {name}" in str(found) or reason in str(found) for name, reason in reasons.items()
    )
    return reasons


def test_blocks_that_scale_what_they_add_are_left_alone(ids: torch.Tensor) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {name: value for name, value in SIZES.items() if name != "head_dim"}
    config = transformers.GraniteConfig(**sizes, residual_multiplier=0.5)
    model = transformers.GraniteForCausalLM(config).eval()
    pw.quantize(model, RECIPES["W8A8-INT"], progress=False)
    reason = "its MLP does not read post_attention_layernorm of input + attention"
    assert fused_and_same(model, ids) == {f"model.layers.{i}": reason for i in range(2)}
    assert not any(isinstance(m, FusedBlock) for m in model.modules())


def test_layers_that_disagree_leave_their_half_alone(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model()
    originals = copy.deepcopy(model)
    recipe = pw.Recipe("W8A8-INT", algorithm="rtn", ignore=["model.layers.0.self_attn.k_proj"])
    pw.quantize(model, recipe, progress=False)
    other = quantize_layer(originals.model.layers[1].mlp.up_proj, RECIPES["W8A8-FP"], None).layer
    replace_module(model, "model.layers.1.mlp.up_proj", other)
    reasons = fused_and_same(model, ids)
    assert reasons["model.layers.0.self_attn"] == "k_proj not quantized by pennyweight"
    assert "different schemes: gate_proj" in reasons["model.layers.1.mlp"]
    assert len(reasons) == 2


def test_down_of_another_scheme_takes_floats(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model()
    recipe = pw.Recipe("W8A8-INT", algorithm="rtn", ignore=["re:.*down_proj"])
    pw.quantize(model, recipe, progress=False)
    assert fused_and_same(model, ids) == {}
    fuse_model(model)
    assert [g.before for g in pw.explain(model).groups] == ["rms_norm_quantize_int8", None]


def test_another_activation_stays_before_down(make_model: Any, ids: torch.Tensor) -> None:
    model = quantized(make_model, hidden_act="gelu")
    assert fused_and_same(model, ids) == {}
    fuse_model(model)
    assert "silu" not in str(pw.explain(model))


class Shifted(nn.Module):
    """RMSNorm with a gain of 1 + weight, as Gemma's."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return normed * (1 + self.weight)


def test_another_norm_leaves_its_half_alone(make_model: Any, ids: torch.Tensor) -> None:
    model = quantized(make_model)
    model.model.layers[0].input_layernorm = Shifted(model.model.layers[0].input_layernorm)
    model.model.layers[1].post_attention_layernorm = nn.LayerNorm(64)
    reasons = fused_and_same(model, ids)
    assert reasons == {
        "model.layers.0.self_attn": "its norm (Shifted) is not x / rms(x) · weight",
        "model.layers.1.mlp": "its norm (LayerNorm) is not x / rms(x) · weight",
    }


def test_attention_that_reads_its_input_elsewhere_is_left_alone(make_model: Any, ids: torch.Tensor) -> None:
    model = quantized(make_model)
    plain = type(model.model.layers[0].self_attn)

    class Gated(plain):  # type: ignore[misc, valid-type]
        def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
            out, weights = super().forward(hidden_states, **kwargs)
            return out * hidden_states.mean(-1, keepdim=True).sigmoid(), weights

    model.model.layers[0].self_attn.__class__ = Gated
    reason = "its attention reads its input elsewhere than in q_proj, k_proj and v_proj"
    assert fused_and_same(model, ids) == {"model.layers.0.self_attn": reason}


def test_mlp_that_does_more_is_left_alone(make_model: Any, ids: torch.Tensor) -> None:
    model = quantized(make_model)
    plain = type(model.model.layers[0].mlp)

    class Doubled(plain):  # type: ignore[misc, valid-type]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model.model.layers[1].mlp.__class__ = Doubled
    assert fused_and_same(model, ids) == {"model.layers.1.mlp": "its MLP gives more than down_proj"}


def test_blocks_of_other_parts_are_left_alone(make_model: Any, ids: torch.Tensor) -> None:
    model = quantized(make_model)
    model.model.layers[0].extra = nn.Identity()
    block = model.model.layers[1]
    block.forward = block.forward
    reasons = fused_and_same(model, ids)
    assert "its parts are extra, input_layernorm" in reasons["model.layers.0"]
    assert "its forward has been replaced" in reasons["model.layers.1"]


def test_a_model_that_does_not_run_on_tokens_is_left_alone(make_model: Any, ids: torch.Tensor) -> None:
    layers = nn.Sequential()
    layers.layers = quantized(make_model).model.layers
    assert "the model does not run on 3 tokens" in fuse_model(layers)["layers.0"]


def test_biases_of_some_layers_are_named(make_model: Any, ids: torch.Tensor) -> None:
    model = quantized(make_model, "Qwen2")
    model.model.layers[0].self_attn.v_proj.bias = None
    reasons = fused_and_same(model, ids)
    assert reasons == {"model.layers.0.self_attn": "q_proj, k_proj with a bias, the others without"}


def test_a_model_is_fused_once(make_model: Any) -> None:
    _, fused = pair(make_model, "W8A8-INT")
    with pytest.raises(pw.UnsupportedError, match="fuse: the model is fused already"):
        fuse_model(fused)


def test_quantize_reports_what_it_left_unfused(make_model: Any) -> None:
    model = make_model()
    recipe = pw.Recipe("W8A8-INT", algorithm="rtn", ignore=["model.layers.0.mlp.gate_proj"])
    report = pw.quantize(model, recipe, progress=False, fuse=True)
    assert report.warnings == ["left unfused: model.layers.0.mlp: gate_proj not quantized by pennyweight"]
    assert pw.explain(model).fused == ["model.layers.0", "model.layers.1"]
