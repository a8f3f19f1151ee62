# SPDX-License-Identifier: Apache-2.0
"""`accelerate`: a model that transformers loaded from a compressed-tensors checkpoint, put on our kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from pennyweight import linear_bf16
from pennyweight.checkpoint.layout import check_finite, layer_tensors
from pennyweight.checkpoint.loader import build_layer, quantized_linears
from pennyweight.checkpoint.quantization_config import parse, quantization_of
from pennyweight.errors import CheckpointError
from pennyweight.fuse import fuse_model
from pennyweight.layers import QuantizedLinear
from pennyweight.schemes import Scheme
from pennyweight.swap import replace_module

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Model = TypeVar("Model", bound="PreTrainedModel")
WHERE = "accelerate"
DECOMPRESSED = (
    "transformers has decompressed this model, at its first forward pass or by dequantize=True; load it "
    "again and call accelerate first, or use pennyweight.load"
)


def accelerate(model: Model, *, fuse: bool = False) -> Model:
    """Replace the compressed layers of a model that transformers loaded by pennyweight's, in place.

    transformers decompresses such a model at its first forward pass, so this must come before.

    Args:
        model: From ``AutoModelForCausalLM.from_pretrained`` of a checkpoint in FP8_DYNAMIC, W8A8 or W4A16.
        fuse: Put fused ops in place (`fuse.fuse_model`); what they do not fit, `explain` names.
    Returns:
        The same model.
    Raises:
        CheckpointError: The model is not from such a checkpoint, or is decompressed already.
        UnsupportedError: The checkpoint is in a format that we do not read; the text has its name.
    """
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise CheckpointError(f"{WHERE}: the model's layers are pennyweight's already")
    config = model.config.to_dict()
    raw = quantization_of(config)
    if raw is None:
        raise CheckpointError(
            f"{WHERE}: the model is not quantized (no quantization_config), or was loaded with dequantize=True; "
            "load it again without that, or quantize it with pennyweight.quantize"
        )
    status = raw.get("quantization_status")
    if getattr(status, "value", status) == "decompressed":
        raise CheckpointError(f"{WHERE}: {DECOMPRESSED}")
    quantization = parse(config, f"{WHERE}: the model's config")
    layers = quantized_linears(model, quantization, f"{WHERE}: the model's config")
    built = {name: _rebuild(name, linear, quantization.scheme) for name, linear in layers.items()}
    for name, layer in built.items():
        replace_module(model, name, layer)
    _remove_decompression(model)
    if fuse:
        fuse_model(model)
        linear_bf16.place(model)
    return model


def _rebuild(name: str, linear: nn.Linear, scheme: Scheme) -> QuantizedLinear:
    n, k = linear.out_features, linear.in_features
    held: Mapping[str, torch.Tensor] = {**dict(linear.named_parameters()), **dict(linear.named_buffers())}
    expected = layer_tensors(scheme, n, k)
    tensors = {}
    for last, tensor in expected.items():
        found = held.get(last)
        if found is None or found.dtype not in tensor.dtypes:
            raise CheckpointError(
                f"{WHERE}: {name} has no compressed weight ({last}: {getattr(found, 'dtype', None)}): "
                f"{DECOMPRESSED}"
            )
        if tuple(found.shape) != tensor.shape:
            raise CheckpointError(
                f"{WHERE}: {name}.{last} has shape {list(found.shape)}, must be {list(tensor.shape)}"
            )
        tensors[last] = found.detach()
        check_finite(tensors[last], f"{name}.{last}", WHERE)
    bias = None if linear.bias is None else linear.bias.detach()
    return build_layer(tensors, scheme, n, k, bias, f"{WHERE}: {name}")


def _remove_decompression(model: nn.Module) -> None:
    """Take away the hook that would decompress the model at its first forward pass: nothing is left to do."""
    hook = getattr(model, "ct_decompress_hook", None)
    if hook is not None:
        hook.remove()
        del model.ct_decompress_hook
