# SPDX-License-Identifier: Apache-2.0
"""Reading and writing a safetensors file: the library's files, ours, and every kind of lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from folders import edit_header
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pennyweight.checkpoint.safetensors_file import as_bytes, plan_file, read_header, read_tensor
from pennyweight.errors import CheckpointError

TENSORS = {
    "b.int8": torch.arange(-7, 8, dtype=torch.int8).reshape(3, 5),
    "a.bf16": torch.linspace(-1, 1, 6, dtype=torch.bfloat16),
    "c.int64": torch.tensor([3, 5]),
    "d.fp8": torch.linspace(-3, 3, 7).to(torch.float8_e4m3fn),
    "e.empty": torch.empty(0, 4),
    "f.scalar": torch.tensor(2.5),
    "g.é": torch.ones(2, dtype=torch.float16),
}


def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    head, entries = plan_file(path, [(n, t.dtype, tuple(t.shape)) for n, t in tensors.items()])
    with path.open("wb") as file:
        file.write(head)
        for entry in entries:
            assert file.tell() == entry.begin
            file.write(as_bytes(tensors[entry.name]))


def bits(tensor: torch.Tensor) -> bytes:
    return as_bytes(tensor).tobytes()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def test_reader_reads_what_the_library_writes(good: Path) -> None:
    entries = read_header(good)
    assert entries.keys() == TENSORS.keys()
    for name, entry in entries.items():
        tensor = read_tensor(entry)
        assert (tensor.dtype, tensor.shape) == (TENSORS[name].dtype, TENSORS[name].shape)
        assert bits(tensor) == bits(TENSORS[name])


def test_writer_writes_the_library_s_bytes(good: Path, tmp_path: Path) -> None:
    write(tmp_path / "ours.safetensors", TENSORS)
    loaded = load_file(tmp_path / "ours.safetensors")
    assert all(bits(loaded[name]) == bits(tensor) for name, tensor in TENSORS.items())
    assert (tmp_path / "ours.safetensors").read_bytes() == good.read_bytes()


def set_entry(name: str, key: str, value: object) -> Callable[[dict], None]:
    return lambda header: header[name].__setitem__(key, value)


def shift_all(header: dict) -> None:
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [offset + 1 for offset in entry["data_offsets"]]


def overlap(header: dict) -> None:
    header["d.fp8"]["data_offsets"][0] -= 1
    header["d.fp8"]["shape"] = [8]


LIES = {
    "dtype-unknown": (set_entry("a.bf16", "dtype", "F4"), "tensor 'a.bf16': unknown dtype 'F4'"),
    "dtype-not-text": (set_entry("a.bf16", "dtype", [1]), "unknown dtype"),
    "dtype-larger": (set_entry("a.bf16", "dtype", "F32"), r"needs 24 bytes.*give 12"),
    "shape-negative": (set_entry("a.bf16", "shape", [-2, -3]), "shape must be a list of sizes"),
    "shape-bool": (set_entry("a.bf16", "shape", [True]), "shape must be a list of sizes"),
    "shape-float": (set_entry("a.bf16", "shape", [6.0]), "shape must be a list of sizes"),
    "shape-absurd": (set_entry("a.bf16", "shape", [2**62, 2**62]), "needs .* bytes"),
    "offsets-reversed": (set_entry("a.bf16", "data_offsets", [12, 0]), "give -12"),
    "offsets-three": (set_entry("a.bf16", "data_offsets", [0, 1, 2]), "must be two positions"),
    "offsets-text": (set_entry("a.bf16", "data_offsets", "ab"), "must be two positions"),
    "offsets-shifted": (shift_all, "leaves a hole before it"),
    "offsets-overlap": (overlap, "overlaps the tensor before it"),
    "entry-no-dtype": (lambda h: h["a.bf16"].pop("dtype"), "must have dtype, shape and data_offsets"),
    "entry-more": (set_entry("a.bf16", "strides", [1]), "must have dtype, shape and data_offsets"),
    "entry-list": (lambda h: h.__setitem__("a.bf16", []), "must have dtype, shape and data_offsets"),
    "tensor-gone": (lambda h: h.pop("b.int8"), "hole|behind its last tensor"),
}


@pytest.mark.parametrize(("change", "text"), LIES.values(), ids=LIES)
def test_reader_refuses_lying_header(good: Path, change: Callable[[dict], None], text: str) -> None:
    edit_header(good, change)
    with pytest.raises(CheckpointError, match=text) as caught:
        read_header(good)
    assert str(good) in str(caught.value)


def json_header(text: str) -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode()


RAW = {
    "empty": (b"", "is truncated: 0 bytes"),
    "short": (b"\x01\x02\x03", "is truncated: 3 bytes"),
    "absurd-length": (b"\xff" * 16, "claim a header of 18446744073709551615 bytes"),
    "length-past-end": ((1000).to_bytes(8, "little") + b"{}", "claims 1000 bytes, the file has 10"),
    "not-json": (json_header("hello"), "no valid JSON"),
    "not-utf8": ((2).to_bytes(8, "little") + b"\xff\xfe", "no valid JSON"),
    "not-object": (json_header("[1]"), "not an object"),
    "deep": (json_header("[" * 100_000), "no valid JSON"),
    "twice": (json_header('{"a": 1, "a": 2}'), "'a' occurs twice"),
    "data-behind": (json_header("{}") + b"x", "bytes behind its last tensor"),
    "html": (b"<!DOCTYPE html><html>", "claim a header of"),
}


@pytest.mark.parametrize(("data", "text"), RAW.values(), ids=RAW)
def test_reader_refuses_damaged_file(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=text):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_reader_refuses_truncated_data(good: Path, cut: int) -> None:
    good.write_bytes(good.read_bytes()[:-cut])
    with pytest.raises(CheckpointError, match="is truncated"):
        read_header(good)


@given(st.binary(max_size=60), st.integers(0, 200))
@settings(deadline=None, max_examples=100)
def test_reader_raises_nothing_but_its_own_error(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, where: int
) -> None:
    path = tmp_path_factory.mktemp("noise") / "x.safetensors"
    write(path, TENSORS)
    data = bytearray(path.read_bytes())
    data[where : where + len(noise)] = noise
    path.write_bytes(data)
    try:
        entries = read_header(path)
    except CheckpointError:
        return
    assert sum(entry.size_bytes for entry in entries.values()) <= len(data)
    assert all(read_tensor(entry).shape == entry.shape for entry in entries.values())


def test_header_is_padded_to_eight_bytes(tmp_path: Path) -> None:
    for length in range(1, 9):
        head, _ = plan_file(tmp_path / "x", [("n" * length, torch.int8, (3,))])
        assert len(head) % 8 == 0
        assert json.loads(head[8:])["__metadata__"] == {"format": "pt"}
