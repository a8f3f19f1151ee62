# SPDX-License-Identifier: Apache-2.0
"""Quantized layers are drop-ins: state dict, copies, devices, dtypes, compilation, threads."""

from __future__ import annotations

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from layer_cases import IDS, SCHEMES, K, N, make
from ops_reference import assert_same_bits
from torch import nn

import pennyweight as pw

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def dequantized(layer: pw.QuantizedLinear) -> torch.Tensor:
    """The weight by torch alone, from the state dict."""
    state = layer.state_dict()
    scale = state["weight_scale"].float()
    if "weight" in state:
        return state["weight"].float() * scale
    shifts = torch.arange(0, 32, 4)
    codes = ((state["weight_packed"].unsqueeze(-1) >> shifts) & 15).reshape(N, -1)[:, :K] - 8
    if "weight_zero_point" in state:
        zeros = (
            ((state["weight_zero_point"].T.unsqueeze(-1) >> shifts) & 15).reshape(scale.shape[1], -1)[:, :N].T
        )
        codes = codes - (zeros - 8).repeat_interleave(K // scale.shape[1], dim=1)
    return codes * scale.repeat_interleave(K // scale.shape[1], dim=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", IDS)
def test_state_dict_is_the_checkpoint_layout(name: str, dtype: torch.dtype) -> None:
    case = make(name, dtype)
    state = case.layer().state_dict()
    assert set(state) == {*case.tensors, "bias"}
    for key, tensor in case.tensors.items():
        assert_same_bits(state[key], tensor, key)
    assert "bias" not in make(name, bias=False).layer().state_dict()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", IDS)
def test_dequantize_is_what_the_tensors_say(name: str, dtype: torch.dtype) -> None:
    layer = make(name, dtype).layer()
    assert_same_bits(layer.dequantize(), dequantized(layer))


@pytest.mark.parametrize("name", IDS)
def test_forward_is_the_linear_layer_of_its_weight(name: str) -> None:
    case = make(name, torch.float32)
    layer, x = case.layer(), case.x(2, 3)
    y, weight = layer(x).double(), layer.dequantize().double()
    seen = as_quantized(case.scheme.activation, x).double()
    want = seen @ weight.T + case.bias.double()
    # in float32: K products and sums, and a rounding for each of two dequantized operands, three scales and the bias
    bound = (K + 8) * 2.0**-24 * (seen.abs() @ weight.abs().T + case.bias.double().abs())
    assert ((y - want).abs() <= bound).all()


def as_quantized(kind: str | None, x: torch.Tensor) -> torch.Tensor:
    """What is left of x after quantizing it per token."""
    if kind is None:
        return x
    codes, scale = pw.ops.quantize_per_token_int8(x) if kind == "int8" else pw.ops.quantize_per_token_fp8(x)
    return (codes if kind == "int8" else codes.view(torch.float8_e4m3fn)).float() * scale


@pytest.mark.parametrize("name", IDS)
def test_load_state_dict_takes_another_layers_state(name: str) -> None:
    one, two = make(name, seed=1), make(name, torch.float16, seed=2)
    target, x = one.layer(), two.x(5)
    target.load_state_dict(two.layer().state_dict())
    target.bias.data = target.bias.data.half()  # a parameter keeps its own dtype, as everywhere in torch
    assert target.state_dict()["weight_scale"].dtype == torch.float16
    assert_same_bits(target.dequantize(), two.layer().dequantize())
    assert target(x).shape == (5, N)


@pytest.mark.parametrize("name", IDS)
def test_copies_give_the_same_bits(name: str) -> None:
    case = make(name)
    layer, x = case.layer(), case.x(3)
    y = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same_bits(other(x), y)
        for key, value in layer.state_dict().items():
            assert_same_bits(other.state_dict()[key], value, key)


@pytest.mark.parametrize("name", IDS)
def test_dtype_changes_move_the_bias_alone(name: str) -> None:
    case = make(name, torch.bfloat16)
    layer = case.layer()
    for change in (nn.Module.half, nn.Module.double, nn.Module.float, lambda m: m.to(torch.bfloat16)):
        changed = change(nn.Sequential(copy.deepcopy(layer)))[0]
        assert_same_bits(changed.dequantize(), layer.dequantize())
        assert_same_bits(changed.state_dict()["weight_scale"], case.tensors["weight_scale"])
    changed = copy.deepcopy(layer).float()
    assert changed.bias.dtype == torch.float32
    assert changed(torch.randn(2, K)).dtype == torch.float32


@pytest.mark.parametrize("name", IDS)
def test_meta_and_back(name: str) -> None:
    case = make(name)
    layer, x = case.layer(), case.x(3)
    empty = copy.deepcopy(layer).to("meta")
    assert all(v.is_meta for v in empty.state_dict().values())
    assert {k: (v.shape, v.dtype) for k, v in empty.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in layer.state_dict().items()
    }
    assert empty(x.to("meta")).shape == (3, N)
    empty.load_state_dict(layer.state_dict(), assign=True)
    assert_same_bits(empty(x), layer(x))


def test_load_state_dict_names_what_is_wrong() -> None:
    model = nn.ModuleDict({"up": make("int8").layer(), "down": make("int4-g32-zero-points").layer()})
    state = model.state_dict()
    state["up.weight"] = state["up.weight"][:, 1:]
    del state["down.weight_zero_point"]
    state["down.weight"] = torch.zeros(2)
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    text = str(caught.value)
    assert f"up: W8A8-INT: weight must be [{N}, {K}] int8; got [{N}, {K - 1}] int8" in text
    assert 'Missing key(s) in state_dict: "down.weight_zero_point"' in text
    assert 'Unexpected key(s) in state_dict: "down.weight"' in text
    left = model.load_state_dict({}, strict=False)
    assert set(left.missing_keys) == set(model.state_dict())


@pytest.mark.parametrize("name", IDS)
def test_from_tensors_refuses_tensors_that_do_not_fit(name: str) -> None:
    for key in make(name).tensors:
        case = make(name)
        del case.tensors[key]
        with pytest.raises(pw.ShapeError, match="its tensors are"):
            case.layer()
        case = make(name)
        case.tensors[key] = case.tensors[key][:-1]
        with pytest.raises(pw.ShapeError, match=f"{key} must be"):
            case.layer()
        case = make(name)
        case.tensors[key] = case.tensors[key].to(torch.int16)
        with pytest.raises(pw.ShapeError, match=f"{key} must be .*int16"):
            case.layer()
    case = make(name)
    case.bias = case.bias[1:]
    with pytest.raises(pw.ShapeError, match="bias must be"):
        case.layer()


def test_from_tensors_believes_weight_shape_and_groups() -> None:
    case = make("int4-g64")
    case.tensors["weight_shape"] = torch.tensor([N, K - 1])
    with pytest.raises(pw.ShapeError, match="weight_shape must hold"):
        case.layer()
    with pytest.raises(pw.ShapeError, match="K must be a multiple of group_size; got K=100, group_size=64"):
        pw.QuantizedLinear.from_tensors(case.tensors, scheme=case.scheme, in_features=100, out_features=N)


@pytest.mark.parametrize("name", IDS)
def test_forward_refuses_another_width(name: str) -> None:
    with pytest.raises(pw.ShapeError, match=r"x must be \(\.\.\., 128\); got \[2, 127\] bfloat16"):
        make(name).layer()(torch.zeros(2, K - 1, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.bfloat16, "bf16"), (torch.float16, "f16"), (torch.float32, "f32")]
)
def test_int4_scales_are_kept_in_the_narrowest_dtype_that_holds_them(dtype: torch.dtype, kept: str) -> None:
    case = make("int4-g64", dtype)
    assert case.layer().scale_name == kept
    case.tensors["weight_scale"] = torch.full((N, 2), 0.5, dtype=dtype)
    assert case.layer().scale_name == "bf16"
    assert case.layer().state_dict()["weight_scale"].dtype == dtype


@pytest.mark.parametrize("name", IDS)
def test_a_layer_keeps_one_packed_copy(name: str) -> None:
    case = make(name)
    layer = case.layer()
    case.tensors.clear()
    layer(case.bias.new_zeros(2, K))
    gc.collect()
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in layer.buffers()}
    panel = 128 * K * SCHEMES[name].bits // 8
    scales = 128 * (8 if SCHEMES[name].group_size == -1 else K // SCHEMES[name].group_size * 8)
    assert sum(held.values()) <= panel + scales


@pytest.mark.parametrize("name", IDS)
def test_compiles_to_one_graph_with_the_same_bits(name: str) -> None:
    case = make(name)
    layer, x = case.layer(), case.x(2, 3)
    torch._dynamo.reset()
    assert_same_bits(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))


def test_compiled_layer_serves_every_number_of_rows() -> None:
    case = make("int8")
    layer = case.layer()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for m in (1, 2, 17):
        x = case.x(m)
        assert_same_bits(compiled(x), layer(x))


@pytest.mark.parametrize("name", IDS)
def test_python_threads_share_a_layer(name: str) -> None:
    case = make(name)
    layer = case.layer()
    xs = [case.x(m) for m in (1, 2, 3, 17, 40, 64)] * 5
    want = [layer(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for got, y in zip(pool.map(layer, xs), want, strict=True):
            assert_same_bits(got, y)


def test_repr_says_what_it_is() -> None:
    text = repr(make("int4-g32-zero-points").layer())
    assert "LinearW4A16(in_features=128, out_features=70, bias=True" in text
    assert "scheme=W4A16-INT, group_size=32, symmetric=False" in text
