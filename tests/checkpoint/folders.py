# SPDX-License-Identifier: Apache-2.0
"""The checkpoints by llm-compressor, ways to damage a copy of one, and comparison by bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pennyweight.checkpoint.safetensors_file import as_bytes

FIXTURES = Path(__file__).parent / "fixtures"
SCHEMES = ("FP8_DYNAMIC", "W8A8", "W4A16", "W4A16_ASYM")


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
