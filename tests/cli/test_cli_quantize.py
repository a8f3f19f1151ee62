# SPDX-License-Identifier: Apache-2.0
"""`pennyweight quantize`: checkpoint to checkpoint, the same files each time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command import files, refused
from safetensors.torch import save_file
from tiny import tiny_model
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import pennyweight as pw

RANDOM = ("--calibration", "random", "--samples", 4, "--length", 32)
SCHEMES: dict[str, tuple[object, ...]] = {
    "fp8": ("--scheme", "W8A8-FP"),
    "int8-smooth": ("--scheme", "w8a8", *RANDOM, "--smoothquant"),
    "int8-rtn": ("--scheme", "W8A8-INT", "--algorithm", "rtn"),
    "int4": ("--scheme", "W4A16-INT", *RANDOM, "--observer", "minmax", "--group-size", 64),
}


@pytest.mark.parametrize("options", SCHEMES.values(), ids=SCHEMES)
def test_quantize_twice_gives_equal_files(
    pennyweight: Callable, source: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    before = files(source)
    for name in ("a", "b"):
        done = pennyweight("quantize", source, tmp_path / name, *options)
        assert (done.code, done.err) == (0, "")
        assert f"saved to {tmp_path / name}" in done.out
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(source) == before
    model = pw.load(tmp_path / "a")
    assert sum(isinstance(m, pw.QuantizedLinear) for m in model.modules()) == 14


def test_quantize_of_and_to_shards_gives_the_same_tensors(
    pennyweight: Callable, source: Path, tmp_path: Path
) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    options = SCHEMES["int8-rtn"]
    assert pennyweight("quantize", source, tmp_path / "a", *options).code == 0
    assert pennyweight("quantize", tmp_path / "shards", tmp_path / "b", *options).code == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert pennyweight("quantize", source, tmp_path / "c", *options, "--max-shard-size", "100KB").code == 0
    assert len(list((tmp_path / "c").glob("*.safetensors"))) > 3
    one, many = pw.load(tmp_path / "a").state_dict(), pw.load(tmp_path / "c").state_dict()
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_quantize_reports_as_json_and_records_the_recipe(
    pennyweight: Callable, source: Path, tmp_path: Path
) -> None:
    options = ("--scheme", "W4A16-INT", *RANDOM, "--damping", 0.02, "--ignore", "re:.*k_proj", "--json")
    done = pennyweight("quantize", source, tmp_path / "out", *options, tmp_path / "report.json")
    assert done.code == 0
    result = json.loads((tmp_path / "report.json").read_text())
    assert set(result) == {"version", "source", "out", "report"}
    assert result["report"]["recipe"]["damping"] == 0.02
    assert len(result["report"]["layers"]) == 12
    assert "random tokens" in done.out  # the study's warning for 4 bits
    quantization = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    ignored = ["model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.k_proj", "lm_head"]
    assert quantization["ignore"] == ignored
    weights = quantization["config_groups"]["group_0"]["weights"]
    assert (weights["observer"], weights["actorder"]) == ("mse", "static")


def with_tokenizer(source: Path, folder: Path) -> Path:
    """A copy of the source with a tokenizer of the words w0 to w255 and a licence."""
    shutil.copytree(source, folder)
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(256)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    (folder / "LICENSE").write_text("a licence")
    return folder


@pytest.mark.parametrize("kind", ["jsonl", "txt", "npy", "safetensors", "folder"])
def test_quantize_calibrates_on_files(pennyweight: Callable, source: Path, tmp_path: Path, kind: str) -> None:
    words = " ".join(f"w{i * 7 % 256}" for i in range(400))
    ids = np.arange(8 * 32).reshape(8, 32) % 256
    data = tmp_path / "data"
    data.mkdir()
    if kind in ("jsonl", "folder"):
        (data / "x.jsonl").write_text("\n".join(json.dumps({"text": words}) for _ in range(3)))
    elif kind == "txt":
        (data / "x.txt").write_text(words)
    elif kind == "npy":
        np.save(data / "x.npy", ids)
    else:
        save_file({"input_ids": torch.from_numpy(ids.copy())}, data / "x.safetensors")
    path = data if kind == "folder" else next(data.iterdir())
    model = with_tokenizer(source, tmp_path / "model")
    options = ("--scheme", "W8A8-INT", "--calibration", path, "--samples", 4, "--length", 32)
    done = pennyweight("quantize", model, tmp_path / "out", *options)
    assert (done.code, done.err) == (0, "")
    assert {"tokenizer.json", "tokenizer_config.json", "LICENSE"} <= set(files(tmp_path / "out"))
    assert files(tmp_path / "out")["tokenizer.json"] == files(model)["tokenizer.json"]


DATA: dict[str, tuple[str, bytes, str]] = {
    "empty": ("x.jsonl", b"", "x.jsonl"),
    "not-utf8": ("x.txt", b"\xff\xfe\xfa", "not UTF-8"),
    "not-json": ("x.jsonl", b"hello", "line 1"),
    "other-ending": ("x.csv", b"a,b", "no file ends in"),
    "not-npy": ("x.npy", b"hello", "not a .npy file"),
    "too-short": ("x.txt", b"w1 w2", "x.txt"),
}


@pytest.mark.parametrize(("name", "data", "text"), DATA.values(), ids=DATA)
def test_quantize_refuses_calibration_data(
    pennyweight: Callable, source: Path, tmp_path: Path, name: str, data: bytes, text: str
) -> None:
    model = with_tokenizer(source, tmp_path / "model")
    (tmp_path / name).write_bytes(data)
    options = ("--scheme", "W8A8-INT", "--calibration", tmp_path / name, "--samples", 4, "--length", 32)
    refused(pennyweight("quantize", model, tmp_path / "out", *options), text)
    assert not (tmp_path / "out").exists()


OPTIONS: dict[str, tuple[tuple[object, ...], str]] = {
    "no-scheme": ((), "Missing option '--scheme'"),
    "unknown-scheme": (("--scheme", "W8A9"), "did you mean"),
    "no-data": (("--scheme", "W4A16-INT"), "--calibration is missing"),
    "no-rows": (
        ("--scheme", "W8A8", "--calibration", "random", "--samples", 0),
        "samples must be at least 1",
    ),
    "no-file": (("--scheme", "W8A8", "--calibration", "/nowhere/x.txt"), "/nowhere/x.txt does not exist"),
    "ignore": (("--scheme", "W8A8-FP", "--ignore", "model.layer.0"), "'model.layer.0' matches no module"),
    "gptq-fp8": (("--scheme", "W8A8-FP", "--algorithm", "gptq"), "use algorithm='rtn'"),
    "device": (("--scheme", "W8A8-FP", "--device", "cuda"), "device=cuda"),
    "device-nonsense": (("--scheme", "W8A8-FP", "--device", "toaster"), "toaster"),
    "shards": (("--scheme", "W8A8-FP", "--max-shard-size", "big"), "max_shard_size must be"),
    "unknown-option": (("--schema", "W8A8-FP"), "--schema"),
}


@pytest.mark.parametrize(("options", "text"), OPTIONS.values(), ids=OPTIONS)
def test_quantize_refuses_options(
    pennyweight: Callable, source: Path, tmp_path: Path, options: tuple[object, ...], text: str
) -> None:
    refused(pennyweight("quantize", source, tmp_path / "out", *options), text)
    assert list(tmp_path.iterdir()) == []


def test_quantize_refuses_existing_output(pennyweight: Callable, source: Path, tmp_path: Path) -> None:
    refused(pennyweight("quantize", source, tmp_path, "--scheme", "W8A8-FP"), "exists already")
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example(pennyweight: Callable) -> None:
    done = pennyweight("quantize", "--help")
    assert done.code == 0
    assert "pennyweight quantize Llama-3.1-8B Llama-3.1-8B-FP8 --scheme W8A8-FP" in done.out
