# SPDX-License-Identifier: Apache-2.0
"""Which implementation runs here, for each layer and each operator, and why not a faster one."""

import html
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from pennyweight import _C
from pennyweight.errors import UnsupportedError
from pennyweight.fuse import FusedBlock, unfused
from pennyweight.grid import aligned, html_table
from pennyweight.layers import QuantizedLinear
from pennyweight.linear_bf16 import LinearBF16

_DECODE, _PREFILL = 1, 2048  # rows of x: one token, and a long prompt

_SHARED_BYTES = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10}  # that a block may have on a card

# Arguments of a usual call, for why_not(); each operator takes those that it has.
_USUAL: dict[str, Any] = {
    **{
        name: 4096
        for name in ("n", "k", "x_stride", "y_stride", "w_stride", "codes_stride", "residual_stride", "rows")
    },
    **{"m": 512, "t": 512, "columns": 4096, "group_size": 128, "bits": 4, "format": 4, "zero_points": 0},
    **{name: "bf16" for name in ("x_dtype", "y_dtype", "w_dtype", "scale_dtype")},
}


@dataclass
class Implementation:
    """One implementation of an operator; ``why_not`` is None where it can run."""

    name: str
    why_not: str | None


@dataclass
class LayerGroup:
    """Layers on our kernels that are run alike.

    Attributes:
        scheme: Their scheme, with its group size where it has one; "bfloat16" where they are not quantized.
        op: The operator that they call.
        before: The operator that makes the codes ``op`` takes (fuse=True); None where ``op`` takes floats.
        shapes: (N, K) of what is called, each once: of several layers in one call, all their outputs.
        dtype: Of the activations.
        decode: What runs for one token: an implementation's name, or "torch".
        prefill: What runs for 2048 tokens.
        why_not: Each faster implementation that does not run, and why.
        layers: Their names.
    """

    scheme: str
    op: str
    before: str | None
    shapes: list[tuple[int, int]]
    dtype: str
    decode: str
    prefill: str
    why_not: dict[str, str]
    layers: list[str] = field(default_factory=list)


@dataclass
class Explanation:
    """What ``pw.explain`` found; it shows itself in a terminal and in a notebook.

    Attributes:
        groups: Layers on our kernels, grouped where they are run alike.
        plain: Names of the ``nn.Linear`` that are left as they are.
        fused: Names of the decoder blocks on fused ops.
        decoding: Those of them that decode one token per sequence on an attention of ours.
        unfused: What ``fuse=True`` left as it was, with the reason.
        forced: The implementation that PENNYWEIGHT_FORCE or ``_C.force`` names, or None.
        strict: Whether PENNYWEIGHT_STRICT refuses all but the best.
        features: What the processor can do.
    """

    groups: list[LayerGroup]
    plain: list[str]
    fused: list[str]
    decoding: list[str]
    unfused: dict[str, str]
    forced: str | None
    strict: bool
    features: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As plain lists, dicts and strings."""
        return asdict(self)

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for g in self.groups:
            runs = g.decode if g.decode == g.prefill else f"{g.decode}; {_PREFILL} tokens: {g.prefill}"
            slower = (
                "; ".join(f"{name}: {why}" for name, why in g.why_not.items()) or "it is the fastest built"
            )
            shapes = " ".join(f"{n}x{k}" for n, k in g.shapes)
            op = f"{g.before} > {g.op}" if g.before else g.op
            rows.append((str(len(g.layers)), g.scheme, shapes, op, g.dtype, runs, slower))
        return rows

    def _notes(self) -> list[str]:
        notes = [f"processor: {', '.join(self.features) or 'none of the features that kernels ask for'}"]
        if self.forced:
            notes.append(f"forced: {self.forced} (PENNYWEIGHT_FORCE)")
        if self.strict:
            notes.append(
                "strict: anything slower than the best implementation is an error (PENNYWEIGHT_STRICT)"
            )
        if self.fused:
            notes.append(f"fused: {_some(self.fused)}")
        if self.decoding:
            notes.append(f"decode on an attention of ours: {_some(self.decoding)}")
        for reason in dict.fromkeys(self.unfused.values()):
            names = [name for name, other in self.unfused.items() if other == reason]
            notes.append(f"left unfused: {_some(names)}: {reason}")
        if self.plain:
            notes.append(f"left as nn.Linear: {_some(self.plain)}")
        return notes

    def __str__(self) -> str:
        rows = [_HEAD, *self._rows()]
        return "\n".join([*aligned(rows, left=range(len(_HEAD))), *self._notes()])

    def _repr_html_(self) -> str:
        notes = "<br>".join(html.escape(note) for note in self._notes())
        return f"{html_table([_HEAD, *self._rows()])}<p>{notes}</p>"


_HEAD = ("layers", "scheme", "N x K", "op", "x", "runs", "why not a faster one")


def explain(model: nn.Module) -> Explanation:
    """Say which implementation runs for each quantized layer on this machine, and why not a faster one.

    Args:
        model: Any module; a single quantized layer will do.
    Returns:
        An ``Explanation``; print it, or let a notebook show it.
    """
    dtype = _activation_dtype(model)
    groups: dict[tuple[Any, ...], LayerGroup] = {}
    heads = {n or type(m).__name__: m for n, m in model.named_modules() if isinstance(m, LinearBF16)}
    found: list[tuple[list[str], QuantizedLinear | LinearBF16, LayerGroup]] = [
        *((call.names, call.layer, _explain_call(call, dtype)) for call in _calls(model)),
        *(([name], layer, _explain_bf16(layer)) for name, layer in heads.items()),
    ]
    for names, layer, group in found:
        key = (group.scheme, group.op, group.before, group.decode, group.prefill, str(group.why_not))
        group = groups.setdefault(key, group)
        group.layers.extend(names)
        if (shape := (layer.out_features, layer.in_features)) not in group.shapes:
            group.shapes.append(shape)
    plain = [
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and not isinstance(m, LinearBF16)
    ]
    fused = {name: m for name, m in model.named_modules() if isinstance(m, FusedBlock)}
    decoding = [name for name, block in fused.items() if block.decodes()]
    features = [name for name, has in _C.features().items() if has is True]
    return Explanation(
        list(groups.values()),
        plain,
        list(fused),
        decoding,
        unfused(model),
        _C.forced(),
        _C.strict(),
        features,
    )


def implementations(compute: int | None = None) -> dict[str, list[Implementation]]:
    """Each operator's implementations, best first, with the reason why one does not run on this machine.

    Asked for a usual call: bfloat16, K = 4096, groups of 128. Which one a model's layers get, ``explain`` says.

    Args:
        compute: Those for a card of this compute capability instead (80, 86, 89 or 90), whether it is here or not;
            operators that have none are left out.
    """
    found = {}
    for op, entry in _C.ops().items():
        args = {name: value for name, value in _USUAL.items() if name in entry["fields"]}
        if compute is None:
            listed = _C.why_not(op, args)
        elif not (listed := _C.cuda_why_not(op, args, compute, 128, _SHARED_BYTES.get(compute, 99 << 10))):
            continue
        found[op] = [Implementation(name, why) for name, why in listed]
    return found


@dataclass
class _Call:
    """A call of a kernel: the layers that it computes, what holds their weight, and the op that makes its codes."""

    names: list[str]
    layer: QuantizedLinear
    before: str | None = None

    def op(self) -> str:
        return self.layer.codes_op if self.before else self.layer.op

    def args(self, m: int, dtype: torch.dtype) -> dict[str, Any]:
        return self.layer.codes_args(m, dtype) if self.before else self.layer.kernel_args(m, dtype)


def _calls(model: nn.Module) -> list[_Call]:
    calls: list[_Call] = []
    done: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, FusedBlock):
            for call in module.calls():
                names = [f"{name}.{part}".removeprefix(".") for part in call.names]
                calls.append(_Call(names, call.layer, call.before))
                done.update(names)
        elif isinstance(module, QuantizedLinear) and module.in_state_dict and name not in done:
            calls.append(_Call([name or type(module).__name__], module))
    return calls


def _explain_call(call: _Call, dtype: torch.dtype) -> LayerGroup:
    layer = call.layer
    group = "" if layer.group_size == -1 else f", group {layer.group_size}"
    scheme = layer.scheme + group + ("" if layer.symmetric else ", zero points")
    kind = str(dtype).removeprefix("torch.")
    one, many = call.args(_DECODE, dtype), call.args(_PREFILL, dtype)
    decode, prefill = _chosen(call, one), _chosen(call, many)
    place = call.layer.packed.device
    why_not = _why_not_faster(call.op(), decode, one, place) | _why_not_faster(
        call.op(), prefill, many, place
    )
    return LayerGroup(scheme, call.op(), call.before, [], kind, decode, prefill, why_not)


def _explain_bf16(layer: LinearBF16) -> LayerGroup:
    why_not: dict[str, str] = {}

    def runs(rows: int) -> str:
        if why := layer.why_not(rows):
            why_not[layer.op] = why
            return "torch"
        chosen = _choose(layer.op, layer.kernel_args(rows))
        args = layer.kernel_args(rows)
        why_not.update(_why_not_faster(layer.op, chosen, args, layer.weight.device))
        return chosen

    decode, prefill = runs(_DECODE), runs(_PREFILL)
    if layer.weight.requires_grad:
        why_not["while gradients are recorded"] = "torch"
    kind = str(layer.weight.dtype).removeprefix("torch.")
    return LayerGroup("bfloat16", layer.op, None, [], kind, decode, prefill, why_not)


def _chosen(call: _Call, args: dict[str, Any]) -> str:
    device = call.layer.packed.device
    if device.type == "cuda":
        return _choose_on_card(call.op(), args, device.index or 0)
    if device.type != "cpu":
        return f"nothing: no kernels for device {device.type}"
    return _choose(call.op(), args)


def _choose_on_card(op: str, args: dict[str, Any], index: int) -> str:
    if not _C.ops()[op]["cuda"]:
        return "nothing: no kernels for device cuda"
    try:
        listed = _C.cuda_why_not(op, args, **_C.card(index))
    except ValueError as error:  # no driver, no such card, nothing built for it
        return f"nothing: {error}"
    forced = [(name, why) for name, why in listed if name == _C.forced()]
    return next(
        (name for name, why in forced or listed if why is None), f"nothing: {_reasons(forced or listed)}"
    )


def _reasons(listed: list[tuple[str, str | None]]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in listed)


def _choose(op: str, args: dict[str, Any]) -> str:
    try:
        return _C.choose(op, args)
    except ValueError as error:  # forced or strict, and this machine cannot
        return f"nothing: {error}"


def _why_not_faster(op: str, chosen: str, args: dict[str, Any], device: torch.device) -> dict[str, str]:
    if chosen.startswith("nothing: "):
        return {}
    reasons = {}
    listed = (
        _C.cuda_why_not(op, args, **_C.card(device.index or 0))
        if device.type == "cuda"
        else _C.why_not(op, args)
    )
    for name, why in listed:
        if name == chosen:
            break
        reasons[name] = why or f"{_C.forced()} is forced"
    return reasons


def _activation_dtype(model: nn.Module) -> torch.dtype:
    """Of what reaches the layers: the model's own floating parameters; without any, the scales' in the checkpoint."""
    floats = (torch.float32, torch.float16, torch.bfloat16)
    for parameter in model.parameters():
        if parameter.dtype in floats:
            return parameter.dtype
    for layer in model.modules():
        if isinstance(layer, QuantizedLinear):
            return layer.scale_dtype
    raise UnsupportedError(f"explain: {type(model).__name__} has no quantized layers; quantize it first")


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
