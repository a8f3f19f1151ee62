# SPDX-License-Identifier: Apache-2.0
"""The forward pass of a decoder block whose parts are fused.

    hidden ─▶ norm, quantize ─▶ q|k|v ─▶ attention ─▶ o        input_layernorm and q, k, v: two calls
       │                                              │
       └──────────────────▶ + , norm, quantize ◀──────┘        the residual goes into the norm's call
                            │             │
                            │        gate|up ─▶ silu · up, quantize ─▶ down        three calls
                            └──────────────────▶ + ◀─────────────────────┘

The attention module runs as it is, on the joint output of q, k and v in place of its hidden states: of those
it only asks the shape's front and hands them to q_proj, k_proj and v_proj, each of which takes its columns.
(`structure.py` has seen that before a block is fused.) One token per sequence with a cache attends by `decode.py`
instead, where the module computes what that does; where all layers of the block are ours, the whole block is then
two calls, `ops.decode_front` and `ops.decode_back`, with the same bits.

A fused block keeps its modules, their names and its class, of which the new class is a subclass: hooks that
transformers sets on the class of a block or of an attention module are found there. Hooks on the norms, the
MLP, and gate and up are not called: these modules do not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pennyweight import ops
from pennyweight.fuse.decode import Decoding, unheard
from pennyweight.fuse.joint import Part, join, joint_bias
from pennyweight.layers import Operands, QuantizedLinear
from pennyweight.swap import replace_module

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
OUT = "self_attn.o_proj"
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
DOWN = "mlp.down_proj"
NORMS = ("input_layernorm", "post_attention_layernorm")

_NORM_QUANTIZE: dict[str, Callable[..., tuple[Tensor, Tensor, Tensor]]] = {
    "fp8": ops.rms_norm_quantize_fp8,
    "int8": ops.rms_norm_quantize_int8,
}
_SILU_QUANTIZE: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "fp8": ops.silu_mul_quantize_fp8,
    "int8": ops.silu_mul_quantize_int8,
}


@dataclass(frozen=True)
class Fusion:
    """What of a block is fused.

    Attributes:
        attention: q, k and v are one call; the norm before them another, with the quantization.
        mlp: Gate and up are one call; the residual and the norm before them another, with the quantization.
        silu: SiLU and its product are one call.
        down: So is the quantization after them, and down takes the codes.
        eps: Of the two norms.
        decoding: How one token per sequence attends on our own ops, None where the module's forward is needed.
        whole: Then the block is two calls, before and after the cache: all of its layers are ours.
    """

    attention: bool
    mlp: bool
    silu: bool
    down: bool
    eps: tuple[float, float]
    decoding: Decoding | None = None
    whole: bool = False


@dataclass(frozen=True)
class Call:
    """A call of a kernel in a fused block: for `explain`.

    Attributes:
        names: The layers that it computes, by their names in the block.
        layer: What holds their weight.
        before: The op that makes its codes, None where it takes floating activations.
    """

    names: tuple[str, ...]
    layer: QuantizedLinear
    before: str | None


class FusedBlock(nn.Module):
    """A decoder block on fused ops; mixed into the block's own class by `fuse_block`."""

    fusion: Fusion
    self_attn: Any
    mlp: Any
    input_layernorm: Any
    post_attention_layernorm: Any
    joint_qkv: QuantizedLinear
    joint_gate_up: QuantizedLinear

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """As the block's own forward: (B, T, hidden) → the same; other arguments go to the attention module."""
        fusion, attention, mlp = self.fusion, self.self_attn, self.mlp
        decoding = fusion.decoding
        if decoding is not None and not decoding.takes(attention, hidden_states, kwargs):
            decoding = None
        if decoding is not None and fusion.whole and unheard(attention.o_proj) and unheard(mlp.down_proj):
            return self._decoded(decoding, hidden_states, kwargs)
        if fusion.attention:
            qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
            norm, eps = self.input_layernorm, fusion.eps[0]
            rows, _ = _normed(self.joint_qkv, qkv, norm, eps, hidden_states, None)
        else:
            rows = self.input_layernorm(hidden_states)
        if decoding is not None:
            attended: Tensor = attention.o_proj(decoding.attend(rows, attention.v_proj.begin, kwargs))
        else:
            attended = attention(hidden_states=rows, **kwargs)[0]
        norm, eps = self.post_attention_layernorm, fusion.eps[1]
        if not fusion.mlp:
            hidden = hidden_states + attended
            out: Tensor = hidden + mlp(norm(hidden))
            return out
        parts = (mlp.gate_proj, mlp.up_proj)
        gate_up, hidden = _normed(self.joint_gate_up, parts, norm, eps, attended, hidden_states)
        if not fusion.silu:
            out = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(gate_up)) * mlp.up_proj(gate_up))
            return out
        if not fusion.down:
            out = hidden + mlp.down_proj(ops.silu_mul(gate_up)[..., : mlp.gate_proj.out_features])
            return out
        down: QuantizedLinear = mlp.down_proj
        codes, scale = _SILU_QUANTIZE[down.weight_kind](gate_up)
        if codes.shape[-1] != down.in_features:  # the joint weight's last panels are filled up
            codes = codes[..., : down.in_features]
        return hidden + down.on_codes(codes, scale, down.bias, gate_up.dtype)

    def _decoded(self, decoding: Decoding, x: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """One token per sequence, (B, 1, hidden) → the same, in two calls around the cache."""
        # Not by attribute: five of nn.Module's take as long as a small op.
        at: dict[str, Any] = self._modules
        attention, mlp, eps = at["self_attn"]._modules, at["mlp"]._modules, self.fusion.eps
        v_proj, o_proj, down_proj = attention["v_proj"], attention["o_proj"], mlp["down_proj"]
        qkv: Operands = at["joint_qkv"].operands(
            joint_bias((attention["q_proj"], attention["k_proj"], v_proj))
        )
        norm, (cos, sin) = at["input_layernorm"]._parameters["weight"], kwargs["position_embeddings"]
        heads = (decoding.heads, decoding.kv_heads, v_proj.begin)
        q, keys, values = ops.decode_front(x, norm, eps[0], *qkv, cos, sin, *heads)
        keys, values, counts = decoding.cached(keys, values, kwargs)
        read = (q, keys, values, decoding.scale, counts, x)
        o: Operands = o_proj.operands(o_proj.bias)
        norm = at["post_attention_layernorm"]._parameters["weight"]
        gate_up: Operands = at["joint_gate_up"].operands(joint_bias((mlp["gate_proj"], mlp["up_proj"])))
        down: Operands = down_proj.operands(down_proj.bias)
        hidden, y = ops.decode_back(*read, *o, norm, eps[1], *gate_up, down_proj.in_features, *down)
        return hidden + y

    def decodes(self) -> bool:
        """Whether one token per sequence attends on our own ops where the block is now."""
        return self.fusion.decoding is not None and self.joint_qkv.packed.device.type == "cpu"

    def calls(self) -> list[Call]:
        """The fused calls, in order."""
        found = []
        if self.fusion.attention:
            found.append(Call(QKV, self.joint_qkv, _name(_NORM_QUANTIZE, self.joint_qkv)))
        if self.fusion.mlp:
            found.append(Call(GATE_UP, self.joint_gate_up, _name(_NORM_QUANTIZE, self.joint_gate_up)))
        if self.fusion.down:
            down = self.mlp.down_proj
            found.append(Call((DOWN,), down, _name(_SILU_QUANTIZE, down)))
        return found

    def __reduce__(self) -> tuple[Any, ...]:  # for copy and pickle: the class is made at run time
        return _empty, (type(self).__bases__[1],), self.__dict__


def _normed(
    joint: QuantizedLinear,
    parts: Sequence[Part],
    norm: Any,
    eps: float,
    x: Tensor,
    residual: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The joint layer of norm(x + residual), and x + residual (empty without a residual)."""
    bias = joint_bias(parts)
    quantize = _NORM_QUANTIZE.get(joint.weight_kind)
    if quantize is None:
        rows, hidden = ops.rms_norm(x, norm.weight, eps, residual)
        return joint.linear(rows, bias), hidden
    codes, scale, hidden = quantize(x, norm.weight, eps, residual)
    return joint.on_codes(codes, scale, bias, x.dtype), hidden


def fuse_block(block: nn.Module, fusion: Fusion) -> None:
    """Make a block of the structure that `structure.py` describes a fused one, in place."""
    joints = {}
    if fusion.attention:
        joints["joint_qkv"] = _join_in(block, QKV)
    if fusion.mlp:
        joints["joint_gate_up"] = _join_in(block, GATE_UP)
    block.__class__ = _fused_class(type(block))
    assert isinstance(block, FusedBlock)
    block.fusion = fusion
    for name, joint in joints.items():
        block.add_module(name, joint)


def _join_in(block: nn.Module, names: tuple[str, ...]) -> QuantizedLinear:
    layers = [block.get_submodule(name) for name in names]
    joint, parts = join([layer for layer in layers if isinstance(layer, QuantizedLinear)])
    for name, part in zip(names, parts, strict=True):
        replace_module(block, name, part)
    return joint


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _fused_class(block_class: type[nn.Module]) -> type[nn.Module]:
    if block_class not in _classes:
        name = f"Fused{block_class.__name__}"
        _classes[block_class] = type(name, (FusedBlock, block_class), {"__module__": __name__})
    return _classes[block_class]


def _empty(block_class: type[nn.Module]) -> nn.Module:
    fused = _fused_class(block_class)
    return fused.__new__(fused)


def _name(table: dict[str, Callable[..., Any]], layer: QuantizedLinear) -> str | None:
    op = table.get(layer.weight_kind)
    return None if op is None else op.__name__
