# SPDX-License-Identifier: Apache-2.0
"""What must hold before a model is touched; each rule names everything that breaks it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from pennyweight.calibration import Calibration
from pennyweight.devices import as_device
from pennyweight.errors import CalibrationError, PennyweightError, ShapeError, UnsupportedError
from pennyweight.layers import QuantizedLinear
from pennyweight.recipes import Recipe
from pennyweight.swap import target_linears

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
#: Names that an error lists before it only counts.
SHOWN = 8


def check_model(
    model: nn.Module, recipe: Recipe, device: torch.device | str | None = None
) -> dict[str, nn.Linear]:
    """Return the layers that a recipe quantizes, by name, once the model is known to be fit for it.

    Raises:
        UnsupportedError: Already quantized, no layer to quantize, a dtype or device that no kernel takes, an
            ignore entry that matches nothing.
        ShapeError: Layers whose K is not divisible by the recipe's group size, all of them.
        PennyweightError: NaN or Inf in weights, all of them.
    """
    _check_not_quantized(model)
    targets = target_linears(model, recipe.ignore)
    if not targets:
        raise UnsupportedError("quantize: ignore leaves no layer to quantize")
    _check_places(model, targets, device)
    _check_groups(targets, recipe)
    _check_finite(model)
    return targets


def check_calibration(model: nn.Module, recipe: Recipe, calibration: Calibration | None) -> None:
    """Raise CalibrationError where data is needed and missing, or does not fit the model's vocabulary."""
    if calibration is None:
        if recipe.needs_calibration:
            why = "GPTQ" if recipe.algorithm == "gptq" else "SmoothQuant"
            raise CalibrationError(
                f"quantize: {recipe.scheme} by {why} needs calibration=, for instance "
                f"pw.calibration.from_texts(texts, tokenizer); rtn without smoothquant needs none"
            )
        return
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    if isinstance(embeddings, nn.Embedding):
        calibration.check_vocabulary(embeddings.num_embeddings)


def _check_not_quantized(model: nn.Module) -> None:
    layers = [name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)]
    if layers or getattr(getattr(model, "config", None), "quantization_config", None) is not None:
        where = f" ({_listed(layers)})" if layers else " (its config has a quantization_config)"
        raise UnsupportedError(
            f"quantize: the model is already quantized{where}; start from the original model"
        )


def _check_places(model: nn.Module, targets: dict[str, nn.Linear], device: torch.device | str | None) -> None:
    places = {p.device for p in model.parameters()}
    names = ", ".join(sorted(map(str, places)))
    if len(places) > 1 or not all(place.type in ("cpu", "cuda") for place in places):
        raise UnsupportedError(
            f"quantize: the model must be on the CPU or on one card; it is on {names}; "
            f"load it there, or move it by model.to('cpu')"
        )
    wanted, home = as_device(device, "quantize"), as_device(places.pop(), "quantize")
    if wanted is not None and home is not None and home.type == "cuda" and wanted != home:
        raise UnsupportedError(
            f"quantize: the model is on {names}; got device={wanted}; leave device out, or move the model first"
        )
    odd = [
        f"{name} ({linear.weight.dtype})"
        for name, linear in targets.items()
        if linear.weight.dtype not in DTYPES
    ]
    if odd:
        raise UnsupportedError(f"quantize: weights must be bfloat16, float16 or float32: {_listed(odd)}")


def _check_groups(targets: dict[str, nn.Linear], recipe: Recipe) -> None:
    size = recipe.layer_scheme.group_size
    ragged = [
        f"{name} (K={m.in_features})" for name, m in targets.items() if size > 0 and m.in_features % size
    ]
    if ragged:
        raise ShapeError(
            f"quantize: K must be a multiple of group_size={size}: {', '.join(ragged)}; use another "
            f"group_size (-1: one scale per row), or leave these layers out with ignore="
        )


def _check_finite(model: nn.Module) -> None:
    bad = []
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and tensor.numel():
            low, high = torch.aminmax(tensor.detach())
            if not (torch.isfinite(low) and torch.isfinite(high)):
                bad.append(name)
    if bad:
        raise PennyweightError(
            f"quantize: NaN or Inf in the weights of {_listed(bad)}; the source is damaged"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
