# SPDX-License-Identifier: Apache-2.0
"""A model folder as transformers writes it: config.json, and one safetensors file or shards with an index.

`read_folder` checks all of it, from the headers of the files alone, before anything is believed. Pickled
weights (.bin, .pt) are never opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pennyweight.checkpoint.safetensors_file import TensorEntry, read_header, reading
from pennyweight.errors import CheckpointError

MAX_JSON_BYTES = 100_000_000
PICKLED = (".bin", ".pt", ".pth")
# No model comes near these; beyond them transformers would spend hours or all memory before it noticed.
CONFIG_LIMITS = {
    "num_hidden_layers": 10_000,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 30,
}


@dataclass(frozen=True)
class Folder:
    """A checked folder: its config.json as a dict and every tensor's place."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorEntry]


def read_folder(path: str | Path) -> Folder:
    """Check a model folder and list its tensors.

    Raises:
        CheckpointError: whatever is missing, truncated or lying, by the name of the file and the tensor.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise CheckpointError(f"{path}: {what}; give a model's folder (config.json and safetensors files)")
    config = _read_config(path)
    return Folder(path, config, _read_tensors(path))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``; CheckpointError when it is anything else."""
    with reading(path):
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path}: has {size} bytes, such a file never has more than {MAX_JSON_BYTES}"
            )
        data = path.read_bytes()
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object; got {type(value).__name__}")
    return value


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f"{path / 'config.json'}: model_type is missing; this is not a config of transformers"
        )
    for key, limit in CONFIG_LIMITS.items():
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise CheckpointError(
                f"{path / 'config.json'}: {key} must be a whole number in 1..{limit}; got {value!r}"
            )
    return config


def _read_tensors(path: Path) -> dict[str, TensorEntry]:
    index = path / "model.safetensors.index.json"
    if index.exists():
        return _read_shards(path, index)
    single = path / "model.safetensors"
    if single.exists():
        return read_header(single)
    pickled = sorted(p.name for p in path.iterdir() if p.suffix in PICKLED)
    if pickled:
        raise CheckpointError(
            f"{path}: has only pickled weights ({pickled[0]}), which can run code and are never opened here; "
            "convert them: load the model with transformers where you trust it, and call save_pretrained"
        )
    raise CheckpointError(f"{path}: holds neither model.safetensors nor model.safetensors.index.json")


def _read_shards(path: Path, index: Path) -> dict[str, TensorEntry]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index}: weight_map must name the shard of each tensor; got {weight_map!r:.80}"
        )
    tensors: dict[str, TensorEntry] = {}
    shards = sorted({_shard_name(index, name, value) for name, value in weight_map.items()})
    for shard in shards:
        if not (path / shard).is_file():
            raise CheckpointError(f"{path / shard}: shard is missing, {index.name} names it; fetch it again")
    for shard in shards:
        for name, entry in read_header(path / shard).items():
            if weight_map.get(name) != shard:
                raise CheckpointError(
                    f"{path / shard}: holds tensor {name!r}, "
                    f"which {index.name} puts into {weight_map.get(name)!r}"
                )
            tensors[name] = entry
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise CheckpointError(
            f"{path / weight_map[absent[0]]}: lacks tensor {absent[0]!r}, which {index.name} puts there"
            f"{f' ({len(absent)} such tensors)' if len(absent) > 1 else ''}; fetch the shard again"
        )
    return tensors


def _shard_name(index: Path, tensor: str, value: Any) -> str:
    """A plain file name: never a path, so that an index cannot point outside its folder."""
    if (
        not isinstance(value, str)
        or not value.endswith(".safetensors")
        or value != Path(value).name
        or "\\" in value
        or "\0" in value
    ):
        raise CheckpointError(
            f"{index}: tensor {tensor!r} is put into {value!r}; "
            "a shard must be a .safetensors file in the same folder"
        )
    return value
