# SPDX-License-Identifier: Apache-2.0
"""`pw.quantize` from end to end on tiny models of the four families."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from families import FAMILIES, same_state, state
from torch import nn

import pennyweight as pw
from pennyweight.quantize import model_bytes

SCHEMES = ["W8A8-FP", "W8A8-INT", "W4A16-INT"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def recipe(scheme: str, **options: Any) -> pw.Recipe:
    """A scheme's preset, in groups that divide the tiny models' sizes."""
    return pw.Recipe(scheme, **({"group_size": 32} if scheme == "W4A16-INT" else {}), **options)


def quantize(model: Any, scheme: str, ids: torch.Tensor, **options: Any) -> pw.Report:
    """Quantize by a scheme's preset."""
    return pw.quantize(model, recipe(scheme, **options), ids, progress=False)


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits in float64."""
    return model(input_ids=ids, use_cache=False).logits.double()


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|; NaN compares false with every bound."""
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_quantize_replaces_every_layer_of_the_blocks(
    family: str, scheme: str, make_model: Any, ids: torch.Tensor
) -> None:
    model = make_model(family, torch.bfloat16)
    before, size = logits(model, ids), model_bytes(model)
    report = quantize(model, scheme, ids)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, pw.QuantizedLinear)}
    assert [layer.name for layer in report.layers] == list(layers) and len(layers) == 14
    assert all(layer.scheme == scheme for layer in layers.values())
    assert [n for n, m in model.named_modules() if isinstance(m, nn.Linear)] == ["lm_head"]
    # Random weights: each of the 14 layers errs by about 3 % (8 bits) or 7 % (4 bits) of its output.
    assert distance(logits(model, ids), before) < (0.5 if scheme == "W4A16-INT" else 0.25)
    assert report.size_before == size > report.size_after == model_bytes(model)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_quantized_model_works_as_a_model(
    dtype: torch.dtype, scheme: str, make_model: Any, ids: torch.Tensor
) -> None:
    model = make_model("Llama", dtype, tie_word_embeddings=True)
    quantize(model, scheme, ids)
    expected = logits(model, ids)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    out = model.generate(ids[:2, :5], max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert out.shape == (2, 11)
    assert not model.training and model.train().training
    model.eval()
    assert torch.equal(logits(copy.deepcopy(model), ids), expected)
    other = make_model("Llama", dtype, tie_word_embeddings=True)
    pw.quantize(other, pw.Recipe(scheme, algorithm="rtn", **_group(scheme)), progress=False)
    assert not torch.equal(logits(other, ids[:1]), expected[:1]) or scheme == "W8A8-FP"
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other, ids), expected)
    layers = [m for m in model.modules() if isinstance(m, pw.QuantizedLinear)]
    weights = [layer.dequantize() for layer in layers]
    # Half precision changes activations by a rounding, which quantizing them anew makes that of a code.
    assert distance(logits(model.half(), ids), expected) < 0.25
    assert all(torch.equal(layer.dequantize(), w) for layer, w in zip(layers, weights, strict=True))


def _group(scheme: str) -> dict[str, int]:
    return {"group_size": 32} if scheme == "W4A16-INT" else {}


def test_quantize_restores_training_modes(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model().train()
    model.model.norm.eval()
    pw.quantize(model, "W8A8-INT", ids, progress=False)
    assert model.training and not model.model.norm.training and model.model.layers[0].mlp.up_proj.training


@pytest.mark.parametrize("family", ["Llama", "Qwen2"])
def test_quantize_keeps_biases(family: str, make_model: Any, ids: torch.Tensor) -> None:
    extra = {"attention_bias": True, "mlp_bias": True} if family == "Llama" else {}
    model = make_model(family, torch.float16, **extra)
    biases = {n: t for n, t in state(model).items() if n.endswith("bias")}
    assert biases
    quantize(model, "W4A16-INT", ids)
    after = state(model)
    assert all(torch.equal(after[name], bias) for name, bias in biases.items())


@pytest.mark.parametrize("scheme", ["W8A8-INT", "W4A16-INT"])
def test_gptq_errs_less_than_rounding(scheme: str, make_model: Any, ids: torch.Tensor) -> None:
    by_gptq = quantize(make_model(), scheme, ids, observer="minmax")
    by_rtn = quantize(make_model(), scheme, ids, observer="minmax", algorithm="rtn")
    pairs = list(zip(by_gptq.layers, by_rtn.layers, strict=True))[:7]  # the first block sees the same inputs
    for ours, plain in pairs:
        assert ours.output_error is not None and plain.output_error is not None
        assert ours.output_error < plain.output_error, ours.name
        assert ours.weight_error > plain.weight_error, ours.name


def test_output_error_is_that_of_the_layer_on_its_inputs(make_model: Any, ids: torch.Tensor) -> None:
    model, seen = make_model(), {}
    name = "model.layers.0.mlp.down_proj"
    linear = model.get_submodule(name)
    hook = linear.register_forward_pre_hook(lambda m, args: seen.update(x=args[0].double().flatten(0, 1)))
    logits(model, ids)
    hook.remove()
    weight = linear.weight.detach().double()
    for algorithm in ("gptq", "rtn"):
        changed = copy.deepcopy(model)
        report = quantize(
            changed, "W4A16-INT", ids, algorithm=algorithm, ignore=[r"re:.*\.(q|k|v|o|gate|up)_proj"]
        )
        difference = changed.get_submodule(name).dequantize().double() - weight
        expected = float((seen["x"] @ difference.T).norm() / (seen["x"] @ weight.T).norm())
        # Sums of 320 tokens x 128 channels in float32: relative error below 448 * 2^-24 of the energies.
        assert report.layers[0].output_error == pytest.approx(expected, rel=1e-4)
        assert report.layers[0].weight_error == pytest.approx(
            float(difference.norm() / weight.norm()), rel=1e-4
        )


@pytest.mark.parametrize("options", [{}, {"smoothquant": True}], ids=["plain", "smoothquant"])
def test_quantize_twice_gives_the_same_bits(
    options: dict[str, Any], make_model: Any, ids: torch.Tensor
) -> None:
    states = []
    for _ in range(2):
        model = make_model("Llama", torch.bfloat16)
        quantize(model, "W8A8-INT", ids, **options)
        states.append(state(model))
    assert same_state(*states)


def test_quantize_leaves_ignored_layers_alone(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model()
    kept = model.model.layers[1].mlp.down_proj
    report = quantize(
        model, "W4A16-INT", ids, ignore=["lm_head", "re:.*layers\\.1\\..*", "model.layers.0.mlp.up_proj"]
    )
    assert len(report.layers) == 6
    assert model.model.layers[1].mlp.down_proj is kept
    assert type(model.model.layers[0].mlp.up_proj) is nn.Linear


def test_quantize_by_rounding_needs_no_data(make_model: Any) -> None:
    for scheme in SCHEMES:
        report = pw.quantize(make_model(), recipe(scheme, algorithm="rtn"), progress=False)
        assert all(layer.output_error is None and layer.tokens == 0 for layer in report.layers)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_compiled_layers_give_the_same_bits(scheme: str, make_model: Any, ids: torch.Tensor) -> None:
    model = make_model("Llama", torch.bfloat16)
    quantize(model, scheme, ids)
    layer = model.model.layers[0].mlp.down_proj
    x = torch.randn(3, 128, dtype=torch.bfloat16)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        got = compiled(input_ids=ids, use_cache=False).logits.double()
    assert distance(got, logits(model, ids)) < 0.02


def test_report_shows_itself(make_model: Any, ids: torch.Tensor) -> None:
    report = quantize(make_model(), "W4A16-INT", ids)
    text, page, values = str(report), report._repr_html_(), report.to_dict()
    assert "model.layers.1.mlp.down_proj" in text and "64 x 128" in text and "smaller" in text
    assert page.count("<tr>") == 15 and "model.layers.1.mlp.down_proj" in page
    assert json.loads(json.dumps(values)) == {**values, "layers": json.loads(json.dumps(values["layers"]))}
    assert set(values) == {
        "version", "recipe", "calibration", "layers", "size_before", "size_after", "peak_memory", "seconds", "warnings",
    }  # fmt: skip
    assert set(values["layers"][0]) == {
        "name", "shape", "algorithm", "output_error", "weight_error", "damping", "tokens", "seconds",
    }  # fmt: skip
    assert values["calibration"] == {"source": "token ids", "samples": 8, "length": 40}
    assert values["layers"][0]["tokens"] == 320 and values["layers"][0]["damping"] == 0.01
    assert report.seconds > 0 and report.peak_memory > report.size_after


def test_progress_bar_is_silent_when_asked(make_model: Any, ids: torch.Tensor, capsys: Any) -> None:
    pw.quantize(make_model(), "W8A8-INT", ids, progress=False)
    assert capsys.readouterr() == ("", "")
    pw.quantize(make_model(), "W8A8-INT", ids)
    assert "14/14" in capsys.readouterr().err


def test_warnings_name_what_a_reader_should_know(make_model: Any, ids: torch.Tensor) -> None:
    model = make_model()
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[3] = 0
    report = quantize(model, "W4A16-INT", ids[:1])
    dead = next(w for w in report.warnings if "zero in every token" in w)
    assert "layers.0.self_attn.k_proj" in dead and "layers.1" not in dead
    assert "fewer calibration tokens than input channels: model.layers.0.self_attn.q_proj" in "\n".join(
        report.warnings
    )
    assert bool(logits(model, ids).isfinite().all())
    noise = pw.calibration.random(97, 8, 40)
    assert (
        "random tokens" in pw.quantize(make_model(), recipe("W4A16-INT"), noise, progress=False).warnings[0]
    )
    assert not pw.quantize(make_model(), "W8A8-INT", noise, progress=False).warnings
