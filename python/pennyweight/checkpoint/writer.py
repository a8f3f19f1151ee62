# SPDX-License-Identifier: Apache-2.0
"""`save`: a quantized model as a compressed-tensors checkpoint, which transformers and vLLM load as it is.

Everything is written into a hidden folder beside the place it is meant for, module by module (one quantized
layer is unpacked at a time), read back and compared, and moved in when it is complete: the output folder is
whole or absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pennyweight.checkpoint import quantization_config
from pennyweight.checkpoint.place import copy_companions, in_place, sync
from pennyweight.checkpoint.safetensors_file import TensorEntry, as_bytes, plan_file, read_header, read_tensor
from pennyweight.errors import CheckpointError, UnsupportedError
from pennyweight.layers import QuantizedLinear
from pennyweight.schemes import Scheme, scheme

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pennyweight.recipes import Recipe

Spec = tuple[str, torch.dtype, tuple[int, ...]]
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def save(
    model: PreTrainedModel,
    out: str | Path,
    tokenizer: Any = None,
    source: str | Path | None = None,
    *,
    recipe: Recipe | None = None,
    max_shard_size: int | str = "5GB",
) -> Path:
    """Write a quantized model as a compressed-tensors checkpoint.

    Args:
        model: A model of transformers with quantized layers.
        out: The folder to make; it must not exist, its parent must.
        tokenizer: Saved along (its chat template too), when given.
        source: The folder that the model came from: everything in it that is not a weight travels along.
        recipe: What the model was quantized with, recorded in config.json; no reader needs it.
        max_shard_size: Bytes per file, or "500MB", "5GB"; a larger model is split.
    Returns:
        The folder, ``out``.
    Raises:
        UnsupportedError: The model has no quantized layers, or layers of several schemes.
        CheckpointError: ``out`` exists, the disk is full, or what was written does not read back the same.
            Nothing is left behind.
    """
    out = Path(out)
    limit = shard_limit(max_shard_size)
    quantized = saved_scheme(model)
    shards = _plan_shards(list(_specs(model)), limit)
    size = sum(_size(spec) for shard in shards for spec in shard)
    with in_place(out, size_bytes=size, like=Path(source) if source is not None else None) as folder:
        if source is not None:
            copy_companions(Path(source), folder)
        _write_json(folder / "config.json", _config(model, quantized, recipe))
        _write_generation_config(model, folder)
        if tokenizer is not None:
            _save_tokenizer(tokenizer, folder)
        _write_weights(model, folder, shards)
    return out


def shard_limit(size: int | str) -> int:
    """Bytes from a number or from "500MB"; UnsupportedError for anything else."""
    if isinstance(size, str) and size[-2:].upper() in UNITS and size[:-2].strip().isdigit():
        size = int(size[:-2]) * UNITS[size[-2:].upper()]
    if not isinstance(size, int) or size < 1:
        raise UnsupportedError(
            f"max_shard_size must be bytes, or a number with KB, MB or GB such as '5GB'; got {size!r}"
        )
    return size


def saved_scheme(model: PreTrainedModel) -> Scheme:
    """The one scheme of all quantized layers."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, QuantizedLinear)}
    if not layers:
        raise UnsupportedError(
            f"save: this {type(model).__name__} has no quantized layers; call pennyweight.quantize first, "
            "or write it as it is with model.save_pretrained"
        )
    schemes = {
        name: replace(scheme(layer.scheme), group_size=layer.group_size, symmetric=layer.symmetric)
        for name, layer in layers.items()
    }
    first = next(iter(schemes))
    for name, other in schemes.items():
        if other != schemes[first]:
            raise UnsupportedError(
                f"save: one checkpoint has one scheme; {first} is {schemes[first]}, {name} is {other}"
            )
    return schemes[first]


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the checkpoint in the modules' order, one module's tensors in memory at a time."""
    ties = bool(getattr(model.config, "tie_word_embeddings", False))
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        if isinstance(module, QuantizedLinear):
            for name, tensor in module.state_dict().items():
                yield dot + name, tensor
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if not (ties and id(parameter) in seen):
                yield dot + name, parameter
            seen.add(id(parameter))
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield dot + name, buffer


def _specs(model: PreTrainedModel) -> Iterator[Spec]:
    for name, tensor in _tensors(model):
        if tensor.is_meta:
            raise CheckpointError(
                f"save: {name} has no data (it is on the meta device); load the model completely first"
            )
        yield name, tensor.dtype, tuple(tensor.shape)


def _size(spec: Spec) -> int:
    return torch.Size(spec[2]).numel() * spec[1].itemsize


def _plan_shards(specs: Sequence[Spec], limit: int) -> list[list[Spec]]:
    """Fill shards in the model's order; a tensor larger than the limit has one of its own."""
    shards: list[list[Spec]] = [[]]
    filled = 0
    for spec in specs:
        if shards[-1] and filled + _size(spec) > limit:
            shards.append([])
            filled = 0
        shards[-1].append(spec)
        filled += _size(spec)
    return shards


def _write_weights(model: PreTrainedModel, folder: Path, shards: list[list[Spec]]) -> None:
    count = len(shards)
    names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    if count == 1:
        names = ["model.safetensors"]
    placed: dict[str, TensorEntry] = {}
    for file, specs in zip(names, shards, strict=True):
        head, entries = plan_file(folder / file, specs)
        (folder / file).write_bytes(head)
        placed.update((entry.name, entry) for entry in entries)
    digests = {name: _write_tensor(placed[name], tensor) for name, tensor in _tensors(model)}
    for file in names:
        sync(folder / file)
        _compare(folder / file, digests)
    if count > 1:
        weight_map = {name: entry.file.name for name, entry in sorted(placed.items())}
        total = sum(entry.size_bytes for entry in placed.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)


def _write_tensor(entry: TensorEntry, tensor: torch.Tensor) -> bytes:
    """Write a tensor at its place; the digest of its bytes."""
    data = as_bytes(tensor.detach().cpu().contiguous())
    with entry.file.open("r+b") as file:
        file.seek(entry.begin)
        file.write(data)
    return hashlib.blake2b(data).digest()


def _compare(path: Path, digests: dict[str, bytes]) -> None:
    for name, entry in read_header(path).items():
        if hashlib.blake2b(as_bytes(read_tensor(entry))).digest() != digests[name]:
            raise CheckpointError(
                f"{path}: tensor {name!r} does not read back as it was written; check the disk"
            )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _config(model: PreTrainedModel, quantized: Scheme, recipe: Recipe | None) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(model.config.to_json_string())
    config.pop("_name_or_path", None)  # a path of this machine
    config.pop("compression_config", None)
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    ignore = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    actorder = "static" if recipe is not None and recipe.act_order == "static" else None
    observer = "mse" if recipe is not None and recipe.observer == "mse" else "memoryless_minmax"
    config["quantization_config"] = quantization_config.build(
        quantized, ignore, actorder=actorder, observer=observer
    )
    return config


def _write_generation_config(model: PreTrainedModel, folder: Path) -> None:
    """The source's own file stands where there is one; it may hold more than the model's object."""
    path = folder / "generation_config.json"
    generation = getattr(model, "generation_config", None)
    if generation is not None and not path.exists():
        path.write_text(generation.to_json_string(), encoding="utf-8")


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exceptions, for a full disk too
        raise CheckpointError(f"save: the tokenizer cannot be saved: {error}") from error
