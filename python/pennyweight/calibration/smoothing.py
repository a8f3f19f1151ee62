# SPDX-License-Identifier: Apache-2.0
"""Find in a decoder block what SmoothQuant can be folded into, and fold it.

    q, k, v   <- input_layernorm            the norm's gain is divided
    gate, up  <- post_attention_layernorm   the norm's gain is divided
    down      <- up                         the rows of up, and its bias, are divided

Which layers read a norm is not taken from names alone: they must have been seen to read its output. And the
folded block must compute what the block did, up to rounding; otherwise nothing of it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pennyweight.algorithms import smoothquant
from pennyweight.calibration.walk import Batch, Inputs
from pennyweight.errors import UnsupportedError

#: Norm -> a layer that reads it; layer -> the layer whose rows make its input.
NORMS = {"input_layernorm": "q_proj", "post_attention_layernorm": "gate_proj"}
ROWS = {"down_proj": "up_proj"}
#: A folded block may change its output, less its input, by this share: ten times what rounding weights to
#: bfloat16 does.
TOLERANCE = 0.05

SetTensor = Callable[[nn.Module, str, Tensor], None]


@dataclass
class _Plan:
    """Factors of one block: by layer, its columns and rows; by norm, its gain."""

    columns: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[nn.Module, dict[str, Tensor]] = field(default_factory=dict)


def norms_of(block: nn.Module) -> dict[nn.Module, str]:
    """Return the norms of a block that smoothing can be folded into, with their names."""
    return {
        module: name for name, module in block.named_children() if name in NORMS and hasattr(module, "weight")
    }


def smooth_block(
    block: nn.Module,
    index: int,
    name: str,
    inputs: dict[str, Inputs],
    targets: set[str],
    strength: float,
    batch: Batch,
    set_tensor: SetTensor,
) -> None:
    """Fold smoothing into a block; weights, gains and the Hessians in `inputs` change.

    Args:
        block: Block number `index`, called `name` in the model.
        inputs: What every linear layer of the block reads, by name within the block, with ranges.
        targets: Layers that will be quantized; what only others read is left alone.
        strength: Of SmoothQuant.
        batch: Activations to compare the block before and after with.
        set_tensor: Puts a tensor in the place of a module's parameter (and can take it back).
    Raises:
        UnsupportedError: The block is not built that way, or computes something else afterwards.
    """
    linears = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
    before = batch.run(block, index)
    plan = _Plan()
    for norm, norm_name in norms_of(block).items():
        _plan_norm(plan, norm, norm_name, linears, inputs, targets, strength)
    _plan_rows(plan, linears, inputs, targets, strength)
    if not plan.columns:
        raise UnsupportedError(
            f"smoothquant: {name} has neither of {', '.join(NORMS)} read by q_proj and gate_proj, nor "
            f"up_proj before down_proj; leave smoothquant out"
        )
    _apply(plan, linears, set_tensor)
    change = batch.run(block, index).float() - before.float()
    moved = (before.float() - batch.hidden.float()).norm()
    if not bool(change.norm() <= TOLERANCE * moved):
        raise UnsupportedError(
            f"smoothquant: folding changes what {name} computes by {float(change.norm() / moved):.1%}: "
            f"its norms or its MLP are not those of a Llama; leave smoothquant out"
        )


def _plan_norm(
    plan: _Plan,
    norm: nn.Module,
    name: str,
    linears: dict[str, nn.Linear],
    inputs: dict[str, Inputs],
    targets: set[str],
    strength: float,
) -> None:
    found = [i for i in inputs.values() if i.producer == name]
    if not found or not targets.intersection(found[0].readers):
        return
    seen = found[0]
    scale = _scale(seen, [linears[reader].weight.detach() for reader in seen.readers], strength)
    gain, ratio = smoothquant.fold_gain(norm.get_parameter("weight").detach(), scale)
    plan.norms[norm] = {"weight": gain}
    if getattr(norm, "bias", None) is not None:
        plan.norms[norm]["bias"] = (norm.get_parameter("bias").detach().float() * ratio).to(gain.dtype)
    plan.columns.update(dict.fromkeys(seen.readers, 1 / ratio))
    if seen.hessian is not None:
        smoothquant.rescale_hessian(seen.hessian, ratio)


def _plan_rows(
    plan: _Plan, linears: dict[str, nn.Linear], inputs: dict[str, Inputs], targets: set[str], strength: float
) -> None:
    for name, linear in linears.items():
        parent, _, child = name.rpartition(".")
        source = linears.get(f"{parent}.{ROWS[child]}" if parent else ROWS[child]) if child in ROWS else None
        if source is None or name not in targets or name not in inputs:
            continue
        scale = _scale(inputs[name], [linear.weight.detach()], strength)
        columns = plan.columns.get(_name(linears, source), scale.new_ones(1))
        folded = (source.weight.float() * columns / scale[:, None]).to(source.weight.dtype)
        scale = torch.where(folded.isfinite().all(1), scale, 1.0)
        plan.rows[_name(linears, source)] = 1 / scale
        plan.columns[name] = scale
        hessian = inputs[name].hessian
        if hessian is not None:
            smoothquant.rescale_hessian(hessian, 1 / scale)


def _apply(plan: _Plan, linears: dict[str, nn.Linear], set_tensor: SetTensor) -> None:
    for norm, tensors in plan.norms.items():
        for key, tensor in tensors.items():
            set_tensor(norm, key, tensor)
    for name in plan.columns.keys() | plan.rows.keys():
        linear, rows = linears[name], plan.rows.get(name)
        weight = linear.weight.detach().float()
        if name in plan.columns:
            weight = weight * plan.columns[name]
        set_tensor(
            linear, "weight", (weight if rows is None else weight * rows[:, None]).to(linear.weight.dtype)
        )
        if rows is not None and linear.bias is not None:
            set_tensor(linear, "bias", (linear.bias.detach().float() * rows).to(linear.bias.dtype))


def _scale(inputs: Inputs, weights: list[Tensor], strength: float) -> Tensor:
    assert inputs.low is not None and inputs.high is not None
    return smoothquant.scales(inputs.low, inputs.high, weights, strength)


def _name(linears: dict[str, nn.Linear], linear: nn.Linear) -> str:
    return next(name for name, module in linears.items() if module is linear)
