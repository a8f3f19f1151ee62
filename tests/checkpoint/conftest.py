# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of good folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from pennyweight.checkpoint.safetensors_file import as_bytes

FIXTURES = Path(__file__).parent / "fixtures"
SCHEMES = ("FP8_DYNAMIC", "W8A8", "W4A16", "W4A16_ASYM")


@pytest.fixture
def fixture_copy(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a checkpoint by llm-compressor that a test may damage."""

    def copy(scheme: str) -> Path:
        return Path(shutil.copytree(FIXTURES / scheme, tmp_path / scheme))

    return copy


@pytest.fixture(scope="session")
def dense_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as transformers saves it, in one file."""
    folder = tmp_path_factory.mktemp("dense") / "model"
    tiny_model("llama").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sharded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in several files with an index."""
    folder = tmp_path_factory.mktemp("sharded") / "model"
    tiny_model("llama").save_pretrained(folder, max_shard_size="300KB")
    return folder


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_header(path: Path, change: Callable[[dict], object]) -> None:
    """Change the header of a safetensors file and leave its data as it is."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a folder with one file."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Same shape, dtype and bytes: NaN equals NaN, and 0 is not -0."""
    return a.shape == b.shape and a.dtype == b.dtype and as_bytes(a).tobytes() == as_bytes(b).tobytes()


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Same names and same bits."""
    return a.keys() == b.keys() and all(same_bits(a[name], b[name]) for name in a)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
