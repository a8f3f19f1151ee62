# SPDX-License-Identifier: Apache-2.0
"""One safetensors file: a reader that believes nothing before it is checked, and a writer.

    ┌────────┬──────────────────────┬───────────────────────────────────────────┐
    │ n: u64 │ header: n bytes JSON │ data: tensors one after another, no holes │
    └────────┴──────────────────────┴───────────────────────────────────────────┘
      little   {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets": [begin, end]}, ...}
      endian   offsets count from the first byte of the data

`read_header` checks every number against the length of the file before a byte of data is touched. The writer
orders tensors by dtype, wide ones first, then by name, as the safetensors library does: each is aligned,
and files of equal tensors are equal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pennyweight.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
DTYPES: dict[str, torch.dtype] = {  # in the library's order
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
RANK = {dtype: rank for rank, dtype in enumerate(DTYPES.values())}


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies: ``file``, first byte ``begin`` (from the start of the file), and what it is."""

    name: str
    file: Path
    begin: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Read and check the header of a safetensors file; its tensors by name.

    Raises:
        CheckpointError: the file is truncated, or its header is not what the format demands; the text names
            the file and the tensor.
    """
    with reading(path):
        size = path.stat().st_size
        with path.open("rb") as file:
            header, header_end = _read_json(path, file, size)
    header.pop("__metadata__", None)
    entries = [_entry(path, name, value, header_end) for name, value in header.items()]
    _check_layout(path, entries, header_end, size)
    return {entry.name: entry for entry in entries}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says about ``path`` into a CheckpointError that names it."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: is missing; a model's folder must hold it") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_json(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header as a dict, and the position of the first byte of data."""
    head = file.read(8)
    if len(head) < 8:
        raise CheckpointError(
            f"{path}: is truncated: {size} bytes, a safetensors file has at least 8; fetch it again"
        )
    length = int.from_bytes(head, "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{path}: is no safetensors file: its first 8 bytes claim a header of {length} bytes, "
            f"more than {MAX_HEADER_BYTES} are never written; fetch it again"
        )
    if 8 + length > size:
        raise CheckpointError(
            f"{path}: is truncated: the header claims {length} bytes, the file has {size}; fetch it again"
        )
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the safetensors header is no valid JSON: {error}; fetch it again"
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path}: the safetensors header is not an object of named tensors; fetch it again"
        )
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return result


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(path: Path, name: str, value: Any, header_end: int) -> TensorEntry:
    where = f"{path}: tensor {name!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(
            f"{where}: its header entry must have dtype, shape and data_offsets; fetch the file again"
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{where}: unknown dtype {dtype!r}; known are {', '.join(DTYPES)}")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise CheckpointError(f"{where}: its shape must be a list of sizes; got {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise CheckpointError(f"{where}: data_offsets must be two positions; got {offsets!r}")
    entry = TensorEntry(name, path, header_end + offsets[0], DTYPES[dtype], tuple(shape))
    if offsets[1] - offsets[0] != entry.size_bytes:
        raise CheckpointError(
            f"{where}: {dtype} of shape {shape} needs {entry.size_bytes} bytes, "
            f"its data_offsets {offsets} give {offsets[1] - offsets[0]}; fetch the file again"
        )
    return entry


def _check_layout(path: Path, entries: list[TensorEntry], header_end: int, size: int) -> None:
    """Tensors follow each other without holes or overlaps and end where the file ends."""
    position = header_end
    for entry in sorted(entries, key=lambda e: (e.begin, e.size_bytes)):
        if entry.begin != position:
            kind = "overlaps the tensor before it" if entry.begin < position else "leaves a hole before it"
            raise CheckpointError(
                f"{path}: tensor {entry.name!r} {kind}: it begins at byte {entry.begin}, not {position}; "
                "fetch the file again"
            )
        position += entry.size_bytes
    if position != size:
        what = "is truncated" if size < position else "has bytes behind its last tensor"
        raise CheckpointError(
            f"{path}: {what}: the header describes {position} bytes, the file has {size}; fetch it again"
        )


def read_tensor(entry: TensorEntry) -> torch.Tensor:
    """Read one tensor into memory of its own."""
    tensor = torch.empty(entry.shape, dtype=entry.dtype)
    target = memoryview(as_bytes(tensor))
    with reading(entry.file), entry.file.open("rb", buffering=0) as file:
        file.seek(entry.begin)
        done = 0
        while done < len(target):
            count = file.readinto(target[done:])
            if not count:
                raise CheckpointError(
                    f"{entry.file}: ends inside tensor {entry.name!r}; it changed while it was read"
                )
            done += count
    return tensor


def as_bytes(tensor: torch.Tensor) -> Any:
    """The bytes of a contiguous CPU tensor as a NumPy uint8 array that shares its memory."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


def plan_file(
    path: Path, tensors: Iterable[tuple[str, torch.dtype, tuple[int, ...]]]
) -> tuple[bytes, list[TensorEntry]]:
    """Lay out a file: the bytes before the data (length and header), and each tensor with its place."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    placed = []
    for name, dtype, shape in sorted(tensors, key=lambda t: (-RANK[t[1]], t[0])):
        end = position + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        placed.append(TensorEntry(name, path, position, dtype, tuple(shape)))
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    start = 8 + len(text)
    entries = [TensorEntry(e.name, path, start + e.begin, e.dtype, e.shape) for e in placed]
    return len(text).to_bytes(8, "little") + text, entries
