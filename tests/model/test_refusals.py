# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear error, and the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import same_state, state

import pennyweight as pw
from pennyweight.quantize_layer import FAILED

INT4 = pw.Recipe("W4A16-INT", group_size=32)


def check_untouched(model: Any, before: dict[str, torch.Tensor], modules: list[Any]) -> None:
    """The same modules with the same bits, and no hooks left."""
    assert same_state(state(model), before)
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in m.__dict__ for m in modules)


def refuse(model: Any, error: type[Exception], text: str, recipe: Any, data: Any = None) -> None:
    """Quantizing raises this and changes nothing."""
    before, modules = state(model), list(model.modules())
    with pytest.raises(error, match=text):
        pw.quantize(model, recipe, data, progress=False)
    check_untouched(model, before, modules)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_quantize_names_weights_that_are_not_finite(value: float, make_model: Any, ids: torch.Tensor) -> None:
    model = make_model("Llama", torch.bfloat16)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = value
        model.model.norm.weight[0] = value
    names = r"weights of model.layers.1.mlp.up_proj.weight, model.norm.weight;"
    refuse(model, pw.PennyweightError, names, "W8A8-FP")
    refuse(model, pw.PennyweightError, names, INT4, ids)


def test_quantize_names_all_ragged_layers(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model("Llama", intermediate_size=100)
    down = r"layers.0.mlp.down_proj \(K=100\), model.layers.1.mlp.down_proj \(K=100\);"
    refuse(model, pw.ShapeError, down, INT4, ids)
    refuse(model, pw.ShapeError, r"q_proj \(K=64\).*ignore=", "W4A16-INT", ids)
    for scheme in ("W8A8-FP", "W8A8-INT"):
        pw.quantize(make_model("Llama", intermediate_size=100), scheme, ids, progress=False)
    pw.quantize(model, pw.Recipe("W4A16", group_size=32, ignore=["re:.*down_proj"]), ids, progress=False)


def test_quantize_refuses_a_quantized_model(make_model: Any) -> None:
    model = make_model()
    pw.quantize(model, "W8A8-FP", progress=False)
    refuse(model, pw.UnsupportedError, "already quantized .*q_proj", "W8A8-FP")
    other = make_model()
    other.config.quantization_config = {"quant_method": "compressed-tensors"}
    refuse(other, pw.UnsupportedError, "already quantized", "W8A8-FP")


def test_quantize_refuses_what_it_cannot_do(make_model: Any, ids: torch.Tensor) -> None:
    refuse(make_model(), pw.UnsupportedError, "matches no module", pw.Recipe("W8A8-FP", ignore=["lm_haed"]))
    refuse(make_model(), pw.UnsupportedError, "no layer to quantize", pw.Recipe("W8A8-FP", ignore=["re:.*"]))
    refuse(make_model("Llama", torch.float64), pw.UnsupportedError, r"q_proj \(torch.float64\)", "W8A8-FP")
    with torch.device("meta"):
        model = make_model("Llama", torch.bfloat16, num_hidden_layers=1).to("meta")
    with pytest.raises(pw.UnsupportedError, match="on meta"):
        pw.quantize(model, "W8A8-FP", progress=False)
    with pytest.raises(pw.PennyweightError, match="device=cuda"):  # no card, or no kernels for one
        pw.quantize(make_model(), "W8A8-FP", device="cuda", progress=False)


def test_quantize_asks_for_calibration_where_it_is_needed(make_model: Any) -> None:
    refuse(make_model(), pw.CalibrationError, "by GPTQ needs calibration=", "W8A8-INT")
    smooth = pw.Recipe("W8A8-INT", algorithm="rtn", smoothquant=True)
    refuse(make_model(), pw.CalibrationError, "by SmoothQuant needs calibration=", smooth)


def test_quantize_refuses_ids_outside_the_vocabulary(make_model: Any, ids: torch.Tensor) -> None:
    ids[2, 7] = 97
    refuse(make_model(), pw.CalibrationError, "id 97 in row 2, place 7 .* vocabulary of 97", INT4, ids)
    refuse(make_model(), pw.CalibrationError, "must be integers", INT4, ids.float())


@pytest.mark.parametrize("smoothquant", [None, 0.8])
def test_quantize_names_the_module_whose_input_overflows(
    smoothquant: float | None, make_model: Any, ids: torch.Tensor
) -> None:
    model = make_model("Llama", torch.float16)
    with torch.no_grad():  # gate * up overflows float16 in the second block: down reads Inf
        model.model.layers[1].mlp.up_proj.weight.mul_(3000)
        model.model.layers[1].mlp.gate_proj.weight.mul_(300)
    recipe = pw.Recipe("W8A8-INT", smoothquant=smoothquant)
    refuse(
        model,
        pw.CalibrationError,
        r"NaN or Inf in the activations that model.layers.1.mlp.down_proj",
        recipe,
        ids,
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
@pytest.mark.parametrize("smoothquant", [None, 0.8])
def test_quantize_puts_everything_back_when_interrupted(
    error: type[BaseException],
    smoothquant: float | None,
    make_model: Any,
    ids: torch.Tensor,
    monkeypatch: Any,
) -> None:
    from pennyweight import quantize_layer

    model = make_model("Llama", torch.bfloat16).train()
    before, modules, calls = state(model), list(model.modules()), []
    real = quantize_layer.gptq.solve

    def stop(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 11:  # in the middle of the second block
            raise error
        return real(*args, **options)

    monkeypatch.setattr(quantize_layer.gptq, "solve", stop)
    with pytest.raises(error):
        pw.quantize(model, pw.Recipe("W8A8-INT", smoothquant=smoothquant), ids, progress=False)
    assert len(calls) == 11
    check_untouched(model, before, modules)
    assert all(m.training for m in modules)


def test_layer_whose_hessian_fails_is_rounded_and_named(
    make_model: Any, ids: torch.Tensor, monkeypatch: Any
) -> None:
    from pennyweight import quantize_layer

    real = quantize_layer.gptq.solve

    def spoil(weight: Any, hessian: torch.Tensor, *args: Any, **options: Any) -> Any:
        if tuple(weight.shape) == (64, 128):  # down_proj
            hessian = hessian - 1e3 * hessian.diagonal().max() * torch.eye(len(hessian))
        return real(weight, hessian, *args, **options)

    monkeypatch.setattr(quantize_layer.gptq, "solve", spoil)
    model = make_model()
    report = pw.quantize(model, "W8A8-INT", ids, progress=False)
    failed = [layer.name for layer in report.layers if layer.algorithm == FAILED]
    assert failed == [f"model.layers.{i}.mlp.down_proj" for i in range(2)]
    assert f"rounded to nearest instead: {', '.join(failed)}" in "\n".join(report.warnings)
    plain = make_model()
    pw.quantize(plain, pw.Recipe("W8A8-INT", algorithm="rtn"), progress=False)
    assert torch.equal(
        model.get_submodule(failed[0]).dequantize(), plain.get_submodule(failed[0]).dequantize()
    )


def test_dead_rows_columns_and_denormals_are_fine(make_model: Any, ids: torch.Tensor) -> None:
    for scheme in ("W8A8-FP", "W8A8-INT", "W4A16-INT"):
        model = make_model("Llama", torch.float16, attention_bias=True, tie_word_embeddings=True)
        with torch.no_grad():
            attention = model.model.layers[0].self_attn
            attention.q_proj.weight[:4] = 0
            attention.k_proj.weight.mul_(1e-7)
            attention.v_proj.weight.zero_()
        recipe = INT4 if scheme == "W4A16-INT" else scheme
        pw.quantize(model, recipe, ids, progress=False)
        scales = [t for name, t in model.state_dict().items() if name.endswith("weight_scale")]
        assert len(scales) == 14 and all(bool(s.isfinite().all()) and bool((s > 0).all()) for s in scales)
        with torch.no_grad():
            assert bool(model(input_ids=ids).logits.isfinite().all())
