# SPDX-License-Identifier: Apache-2.0
"""One linear layer: its scales, its codes, and the quantized layer made from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pennyweight import ops
from pennyweight.algorithms import gptq, rtn, scales
from pennyweight.layers import QuantizedLinear
from pennyweight.recipes import Recipe
from pennyweight.schemes import Scheme

#: What a report calls a layer that GPTQ could not do.
FAILED = "rtn (gptq failed)"


@dataclass(frozen=True)
class Quantized:
    """A quantized layer and how it went; the errors as in `LayerReport`."""

    layer: QuantizedLinear
    algorithm: str
    output_error: float | None
    weight_error: float
    damping: float | None = None
    dead_columns: int = 0


def quantize_layer(linear: nn.Linear, recipe: Recipe, hessian: Tensor | None) -> Quantized:
    """Quantize a linear layer by a recipe.

    Args:
        linear: Weight (N, K) bfloat16, float16 or float32; left as it is.
        recipe: What to do.
        hessian: (K, K) float32, lower triangle of X^T X; None: no data (by GPTQ: the layer was never called).
    """
    scheme = recipe.layer_scheme
    weight = linear.weight.detach().contiguous()
    observe = scales.mse if recipe.observer == "mse" else scales.minmax
    scale = observe(weight, scheme.weight, scheme.group_size)
    if recipe.algorithm == "gptq" and hessian is not None:
        return _by_gptq(linear, weight, scale, scheme, recipe, hessian)
    codes = rtn.quantize_weight(weight, scale, scheme.weight, group_size=scheme.group_size)
    layer = make_layer(linear, codes, scale, scheme)
    difference = layer.dequantize() - weight.float()
    return Quantized(
        layer=layer,
        algorithm="rtn" if recipe.algorithm == "rtn" else FAILED,
        output_error=None if hessian is None else _output_error(difference, weight, hessian),
        weight_error=gptq.ratio(_squared(difference), _squared(weight)),
    )


def make_layer(linear: nn.Linear, codes: Tensor, scale: Tensor, scheme: Scheme) -> QuantizedLinear:
    """Build a quantized layer from codes (N, K) and scales (N, K / group_size), in the checkpoint's
    layout.
    """
    size = {"in_features": linear.in_features, "out_features": linear.out_features}
    stored = scale.to(linear.weight.dtype)
    if scheme.weight == "int4":
        shape = torch.tensor([linear.out_features, linear.in_features])
        tensors = {"weight_packed": ops.pack_nibbles(codes), "weight_scale": stored, "weight_shape": shape}
    else:
        weight = codes.view(torch.float8_e4m3fn) if scheme.weight == "fp8" else codes
        tensors = {"weight": weight, "weight_scale": stored}
    return QuantizedLinear.from_tensors(tensors, scheme=scheme, bias=linear.bias, **size)


def _by_gptq(
    linear: nn.Linear, weight: Tensor, scale: Tensor, scheme: Scheme, recipe: Recipe, hessian: Tensor
) -> Quantized:
    found = gptq.solve(
        weight,
        hessian,
        scale,
        bits=scheme.bits,
        group_size=scheme.group_size,
        damping=float(recipe.damping or 0.0),
        act_order=str(recipe.act_order),
    )
    return Quantized(
        layer=make_layer(linear, found.codes, scale, scheme),
        algorithm="gptq" if found.damping is not None else FAILED,
        output_error=found.output_error,
        weight_error=found.weight_error,
        damping=found.damping,
        dead_columns=found.dead_columns,
    )


def _output_error(difference: Tensor, weight: Tensor, hessian: Tensor) -> float:
    """Return |X D^T| / |X W^T| from the lower triangle of X^T X."""
    lower, diagonal = hessian.tril(-1), hessian.diagonal()

    def energy(m: Tensor) -> float:  # sum of m H m^T: the lower triangle counts twice, the diagonal once
        return float(
            2 * ((m @ lower) * m).sum(dtype=torch.float64) + (m * m * diagonal).sum(dtype=torch.float64)
        )

    return gptq.ratio(energy(difference), energy(weight.float()))


def _squared(t: Tensor) -> float:
    return float(t.float().pow(2).sum(dtype=torch.float64))
