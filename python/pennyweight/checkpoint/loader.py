# SPDX-License-Identifier: Apache-2.0
"""`load`: a compressed-tensors checkpoint, ours or llm-compressor's, on our kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pennyweight import linear_bf16
from pennyweight.checkpoint.folder import Folder, read_folder, read_json
from pennyweight.checkpoint.layout import (
    FLOATS,
    Expected,
    check_finite,
    check_groups,
    check_tensors,
    dense_tensors,
    layer_tensors,
    quantized_tensors,
)
from pennyweight.checkpoint.matching import is_match
from pennyweight.checkpoint.quantization_config import QuantizationConfig, parse, quantization_of
from pennyweight.checkpoint.safetensors_file import read_tensor
from pennyweight.checkpoint.skeleton import build_skeleton, tied_names
from pennyweight.devices import as_device
from pennyweight.errors import CheckpointError, UnsupportedError
from pennyweight.fuse import fuse_model
from pennyweight.layers import QuantizedLinear
from pennyweight.schemes import Scheme
from pennyweight.swap import replace_module

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load(
    path: str | Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    *,
    fuse: bool = False,
) -> PreTrainedModel:
    """Load a compressed-tensors checkpoint; its quantized layers run on pennyweight's kernels.

    Args:
        path: The folder: FP8_DYNAMIC, W8A8 or W4A16, by pennyweight or by llm-compressor.
        dtype: Of everything that is not quantized, and so of the activations; None: the checkpoint's.
        device: Where the model goes ("cuda"; a weight is packed there, never as a whole on the CPU); None: the CPU.
        fuse: Put fused ops in place (`fuse.fuse_model`); what they do not fit, `explain` names.
    Returns:
        A model of transformers, in eval mode, its parameters without gradients.
    Raises:
        CheckpointError: The folder is damaged or incomplete; the text names the file and the tensor.
        UnsupportedError: It is a format that we do not read; the text has its name. Or the device is none.
        DeviceError: The card cannot be used.
    """
    place = as_device(device, "load") or torch.device("cpu")
    if dtype is not None and dtype not in FLOATS:
        raise UnsupportedError(f"load: dtype must be bfloat16, float16 or float32; got {dtype}")
    folder = read_folder(path)
    quantization = parse(folder.config, folder.path / "config.json")
    model = build_skeleton(folder.path, dtype)
    layers = quantized_linears(model, quantization, folder.path / "config.json")
    scheme = quantization.scheme
    tied = _check(model, folder, quantized_tensors(model, layers, scheme))
    for name, linear in layers.items():
        replace_module(model, name, _read_layer(folder, name, linear, scheme, place))
    _fill(model, folder, tied, place)
    nn.Module.to(model, place)  # buffers that no file has
    if fuse:
        fuse_model(model)
        linear_bf16.place(model)
    return model


def check_dense(folder: Folder) -> None:
    """Raise CheckpointError when the model in ``folder`` is quantized already, by whatever method."""
    raw = quantization_of(folder.config)
    if raw is not None:
        method = raw.get("quant_method") if isinstance(raw, dict) else raw
        raise CheckpointError(
            f"{folder.path / 'config.json'}: the model is quantized already ({method}); "
            "start from the original model"
        )


def load_dense(folder: Folder) -> PreTrainedModel:
    """Load a model that is not quantized, as strictly as `load`: every tensor there, of its shape, finite."""
    check_dense(folder)
    model = build_skeleton(folder.path, None)
    _fill(model, folder, _check(model, folder, dense_tensors(model)), torch.device("cpu"))
    return model


def quantized_linears(
    model: nn.Module, quantization: QuantizationConfig, where: Path | str
) -> dict[str, nn.Linear]:
    """The linear layers of ``model`` that the config means, by name."""
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and is_match(name, module, quantization.targets)
        and not is_match(name, module, quantization.ignore)
    }
    if not layers:
        raise CheckpointError(
            f"{where}: targets {list(quantization.targets)} match no linear layer of the model"
        )
    check_groups(layers, quantization.scheme, where)
    return layers


def _check(model: PreTrainedModel, folder: Folder, expected: dict[str, Expected]) -> dict[str, str]:
    """Compare the folder's tensors with what the model needs; the names of the model that are tied."""
    tied = tied_names(model)
    check_tensors(folder.tensors, expected, _may_be_absent(tied, folder), folder.path)
    return tied


def _may_be_absent(tied: dict[str, str], folder: Folder) -> set[str]:
    """Of tensors that are one and the same, one name is enough, whichever it is."""
    groups = {first: [first, *(n for n, f in tied.items() if f == first)] for first in tied.values()}
    return {name for names in groups.values() if any(n in folder.tensors for n in names) for name in names}


def _read_layer(
    folder: Folder, name: str, linear: nn.Linear, scheme: Scheme, place: torch.device
) -> QuantizedLinear:
    n, k = linear.out_features, linear.in_features
    tensors = {last: _read(folder, f"{name}.{last}").to(place) for last in layer_tensors(scheme, n, k)}
    bias = None if linear.bias is None else _read(folder, f"{name}.bias").to(place, linear.bias.dtype)
    return build_layer(tensors, scheme, n, k, bias, f"{folder.path}: {name}")


def build_layer(
    tensors: dict[str, torch.Tensor], scheme: Scheme, n: int, k: int, bias: torch.Tensor | None, where: str
) -> QuantizedLinear:
    """Our layer from checked tensors in the checkpoint's layout."""
    shape = tensors.get("weight_shape")
    if shape is not None and shape.tolist() != [n, k]:
        raise CheckpointError(f"{where}: weight_shape says {shape.tolist()}, config.json makes it {[n, k]}")
    return QuantizedLinear.from_tensors(tensors, scheme=scheme, in_features=k, out_features=n, bias=bias)


def _read(folder: Folder, name: str) -> torch.Tensor:
    entry = folder.tensors[name]
    tensor = read_tensor(entry)
    check_finite(tensor, name, entry.file)
    return tensor


def _fill(model: PreTrainedModel, folder: Folder, tied: dict[str, str], place: torch.device) -> None:
    """Give every parameter and persistent buffer that is not quantized its tensor; tied ones share one."""
    made: dict[str, nn.Parameter] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        owner_name, _, last = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if isinstance(owner, QuantizedLinear):
            continue
        first = tied.get(name, name)
        if first in made:
            _check_tied(folder, first, name)
        else:
            stored = first if first in folder.tensors else name
            if stored not in folder.tensors:
                stored = next(n for n, f in tied.items() if f == first and n in folder.tensors)
            made[first] = nn.Parameter(_read(folder, stored).to(place, parameter.dtype), requires_grad=False)
        setattr(owner, last, made[first])
    for name, buffer in model.named_buffers():
        if name in folder.tensors and not isinstance(
            model.get_submodule(name.rpartition(".")[0]), QuantizedLinear
        ):
            buffer.copy_(_read(folder, name))
    _set_generation_config(model, folder.path)


def _check_tied(folder: Folder, first: str, name: str) -> None:
    both = first in folder.tensors and name in folder.tensors
    if both and not torch.equal(_read(folder, first), _read(folder, name)):
        raise CheckpointError(
            f"{folder.path}: config.json ties {first!r} and {name!r}, the files hold two different tensors; "
            "set tie_word_embeddings to false if both are meant"
        )


def _set_generation_config(model: PreTrainedModel, path: Path) -> None:
    from transformers import GenerationConfig

    if (path / "generation_config.json").exists():
        values = read_json(path / "generation_config.json")
        try:
            model.generation_config = GenerationConfig.from_dict(values)
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path / 'generation_config.json'}: is not valid: {error}") from error
