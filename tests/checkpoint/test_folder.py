# SPDX-License-Identifier: Apache-2.0
"""A model folder: its config, its single file or its shards, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import edit_json

from pennyweight.checkpoint.folder import read_folder
from pennyweight.errors import CheckpointError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def single(dense_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dense_folder, tmp_path / "single"))


@pytest.fixture
def shards(sharded_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded_folder, tmp_path / "shards"))


def refuse(folder: Path, text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        read_folder(folder)


def test_folder_lists_the_same_tensors_single_and_sharded(single: Path, shards: Path) -> None:
    one, many = read_folder(single), read_folder(shards)
    assert {n: (e.dtype, e.shape) for n, e in one.tensors.items()} == {
        n: (e.dtype, e.shape) for n, e in many.tensors.items()
    }
    assert len({e.file for e in many.tensors.values()}) > 2


def test_folder_follows_links_as_the_hub_s_cache_has_them(single: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in single.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert read_folder(snapshot).tensors.keys() == read_folder(single).tensors.keys()


def test_folder_refuses_what_is_no_folder(single: Path, tmp_path: Path) -> None:
    refuse(tmp_path / "absent", "absent: does not exist")
    refuse(single / "config.json", "is not a folder")


def test_folder_refuses_missing_weights(single: Path) -> None:
    (single / "model.safetensors").unlink()
    refuse(single, "holds neither model.safetensors nor")


def test_folder_refuses_pickled_weights_and_never_opens_them(single: Path) -> None:
    (single / "model.safetensors").unlink()
    (single / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    refuse(single, "pytorch_model.bin.*convert")


CONFIGS: dict[str, tuple[Callable[[dict], object], str]] = {
    "no-model-type": (lambda c: c.pop("model_type"), "model_type is missing"),
    "zero": (lambda c: c.update(hidden_size=0), "hidden_size must be a whole number in 1..1048576; got 0"),
    "huge": (lambda c: c.update(num_hidden_layers=10**12), "num_hidden_layers must .* got 1000000000000"),
    "negative": (lambda c: c.update(vocab_size=-1), "vocab_size must be"),
    "text": (lambda c: c.update(intermediate_size="256"), "intermediate_size must be .* got '256'"),
    "float": (lambda c: c.update(num_attention_heads=4.0), "num_attention_heads must be"),
    "bool": (lambda c: c.update(num_key_value_heads=True), "num_key_value_heads must be"),
}


@pytest.mark.parametrize(("change", "text"), CONFIGS.values(), ids=CONFIGS)
def test_folder_refuses_config(single: Path, change: Callable[[dict], object], text: str) -> None:
    edit_json(single / "config.json", change)
    refuse(single, text)


@pytest.mark.parametrize(
    ("data", "text"),
    [(None, "config.json: is missing"), (b"", "no valid JSON"), (b"{", "no valid JSON"),
     (b"[]", "JSON object"), (b"\xff", "no valid JSON"), (b"[" * 100_000, "no valid JSON")],
    ids=["missing", "empty", "cut", "list", "not-utf8", "deep"],
)  # fmt: skip
def test_folder_refuses_config_file(single: Path, data: bytes | None, text: str) -> None:
    path = single / "config.json"
    path.unlink() if data is None else path.write_bytes(data)
    refuse(single, text)


def set_shard(name: str) -> Callable[[dict], object]:
    return lambda index: index["weight_map"].__setitem__("model.norm.weight", name)


def swap_shard(index: dict) -> None:
    shards = set(index["weight_map"].values())
    index["weight_map"]["model.norm.weight"] = (shards - {index["weight_map"]["model.norm.weight"]}).pop()


INDEXES: dict[str, tuple[Callable[[dict], object], str]] = {
    "absolute": (set_shard("/etc/x.safetensors"), "must be a .safetensors file in the same folder"),
    "parent": (set_shard("../x.safetensors"), "must be a .safetensors file in the same folder"),
    "subfolder": (set_shard("a/x.safetensors"), "must be a .safetensors file in the same folder"),
    "backslash": (set_shard("..\\x.safetensors"), "must be a .safetensors file in the same folder"),
    "pickle": (set_shard("x.bin"), "must be a .safetensors file in the same folder"),
    "number": (lambda i: i["weight_map"].__setitem__("model.norm.weight", 3), "is put into 3"),
    "absent": (set_shard("model-9.safetensors"), "model-9.safetensors: shard is missing"),
    "wrong-shard": (swap_shard, "'model.norm.weight', which"),
    "one-more": (
        lambda i: i["weight_map"].update(x=i["weight_map"]["model.norm.weight"]),
        "lacks tensor 'x'",
    ),
    "one-less": (lambda i: i["weight_map"].pop("model.norm.weight"), "'model.norm.weight', which .* None"),
    "no-map": (lambda i: i.pop("weight_map"), "weight_map must name the shard"),
    "empty-map": (lambda i: i.update(weight_map={}), "weight_map must name the shard"),
}


@pytest.mark.parametrize(("change", "text"), INDEXES.values(), ids=INDEXES)
def test_folder_refuses_index(shards: Path, change: Callable[[dict], object], text: str) -> None:
    edit_json(shards / INDEX, change)
    refuse(shards, text)


def test_folder_refuses_missing_shard(shards: Path) -> None:
    shard = sorted(shards.glob("model-*.safetensors"))[1]
    shard.unlink()
    refuse(shards, f"{shard.name}: shard is missing")
