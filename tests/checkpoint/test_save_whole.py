# SPDX-License-Identifier: Apache-2.0
"""An output folder is whole or absent, and readable; what is not a weight travels along."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from folders import FIXTURES, contents
from tiny import tiny_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import pennyweight as pw
from pennyweight.checkpoint import place, writer
from pennyweight.errors import CheckpointError, UnsupportedError


@pytest.fixture
def model() -> torch.nn.Module:
    return pw.load(FIXTURES / "W4A16")


def refuse(model: torch.nn.Module, out: Path, text: str, **options: object) -> None:
    before = contents(out.parent) if out.parent.is_dir() else {}
    with pytest.raises(CheckpointError, match=text):
        pw.save(model, out, **options)
    assert (contents(out.parent) if out.parent.is_dir() else {}) == before


def test_save_refuses_existing_folder_even_when_empty(model: torch.nn.Module, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    refuse(model, tmp_path / "out", "out: exists already")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    refuse(model, tmp_path / "link", "link: exists already")


def test_save_refuses_missing_parent(model: torch.nn.Module, tmp_path: Path) -> None:
    refuse(model, tmp_path / "no" / "out", r"parent folder .* does not exist")
    assert not (tmp_path / "no").exists()


def test_save_refuses_dense_model(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"no quantized layers; call pennyweight.quantize first"):
        pw.save(tiny_model("llama"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_several_schemes(model: torch.nn.Module, tmp_path: Path) -> None:
    model.model.layers[0].mlp.up_proj = pw.load(FIXTURES / "W8A8").model.layers[0].mlp.up_proj
    with pytest.raises(
        UnsupportedError, match=r"one checkpoint has one scheme; .*q_proj .* model.layers.0.mlp.up_proj"
    ):
        pw.save(model, tmp_path / "out")


def test_save_refuses_model_without_data(model: torch.nn.Module, tmp_path: Path) -> None:
    model.model.norm.to("meta")
    refuse(model, tmp_path / "out", "model.norm.weight has no data")


@pytest.mark.parametrize("size", ["5 bananas", "GB", 0, -1, "1.5GB"])
def test_save_refuses_shard_size(model: torch.nn.Module, tmp_path: Path, size: object) -> None:
    with pytest.raises(UnsupportedError, match="max_shard_size must be"):
        pw.save(model, tmp_path / "out", max_shard_size=size)


def test_save_refuses_when_there_is_no_room(
    model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.shutil, "disk_usage", lambda path: FullDisk)
    refuse(model, tmp_path / "out", r"needs \d+ bytes, the disk has 1000 free")


class FullDisk:
    free = 1000


FULL_DISK = """
import resource, sys
import pennyweight as pw
model = pw.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    pw.save(model, sys.argv[2])
except pw.CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(FIXTURES / "W4A16"), str(tmp_path / "out"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "the disk is full or a file-size limit was met" in done.stdout, done.stderr
    assert str(tmp_path / "out") in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("x"), MemoryError()], ids=repr)
@pytest.mark.parametrize("step", ["_write_tensor", "_compare", "sync"])
def test_anything_that_stops_the_writing_leaves_nothing(
    model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def stop(*_: object) -> None:
        raise error

    monkeypatch.setattr(writer, step, stop)
    with pytest.raises(type(error)):
        pw.save(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_read_back_is_noticed(
    model: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(path: Path) -> None:
        if path.suffix == ".safetensors":
            with path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)[0]
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last ^ 1]))

    monkeypatch.setattr(writer, "sync", damage)
    refuse(model, tmp_path / "out", "does not read back as it was written")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_follow_the_umask(model: torch.nn.Module, tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        pw.save(model, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {mode}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask


def test_the_group_that_reads_the_source_reads_the_output(
    model: torch.nn.Module, tmp_path: Path, fixture_copy: Callable[[str], Path]
) -> None:
    source = fixture_copy("W8A8")
    groups = [g for g in os.getgroups() if g != os.getegid()]
    if os.geteuid() == 0:
        groups = [12345]
    if groups:
        os.chown(source / "config.json", -1, groups[0])
    (source / "config.json").chmod(0o640)
    before = os.umask(0o077)
    try:
        out = pw.save(model, tmp_path / "out", source=source)
    finally:
        os.umask(before)
    wanted = (source / "config.json").stat().st_gid
    assert {(stat.S_IMODE(p.stat().st_mode), p.stat().st_gid) for p in out.iterdir()} == {(0o640, wanted)}
    assert (stat.S_IMODE(out.stat().st_mode), out.stat().st_gid) == (0o750, wanted)


def test_what_is_not_a_weight_travels_along(
    model: torch.nn.Module, tmp_path: Path, fixture_copy: Callable[[str], Path]
) -> None:
    source = fixture_copy("W8A8")
    kept = {
        "tokenizer.json": "{}", "chat_template.jinja": "{{ messages }}", "LICENSE": "text", "README.md": "read",
        "generation_config.json": '{"max_length": 3}', "additional_chat_templates/tool.jinja": "{{ tools }}",
    }  # fmt: skip
    left = ["pytorch_model.bin", "x.gguf", "original/params.json", "original/consolidated.00.pth", ".cache/x",
            "model.safetensors.index.json", "recipe.yaml", "onnx/model.onnx_data"]  # fmt: skip
    for name in [*kept, *left]:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(kept.get(name, "weights"))
    before = contents(source)
    out = contents(pw.save(model, tmp_path / "out", source=source))
    assert contents(source) == before
    assert out.keys() == {"config.json", "model.safetensors", *kept}
    assert {name: out[name].decode() for name in kept} == kept
    assert json.loads(out["config.json"])["quantization_config"]["format"] == "pack-quantized"


def test_tokenizer_is_saved_with_its_template(model: torch.nn.Module, tmp_path: Path) -> None:
    words = {"a": 0, "b": 1}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="a")))
    tokenizer.chat_template = "{{ messages[0].content }}"
    out = pw.save(model, tmp_path / "out", tokenizer=tokenizer)
    loaded = AutoTokenizer.from_pretrained(out)
    assert loaded("b")["input_ids"] == [1]
    assert loaded.chat_template == tokenizer.chat_template


def test_config_names_no_path_of_this_machine(tmp_path: Path) -> None:
    model = pw.load(FIXTURES / "W8A8")
    out = pw.save(model, tmp_path / "out")
    assert str(FIXTURES.parent) not in (out / "config.json").read_text()
