# SPDX-License-Identifier: Apache-2.0
"""Calibration data from every source, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pennyweight import calibration
from pennyweight.errors import CalibrationError


class Tokenizer:
    """One token per character, 1 before each text; a template when asked for."""

    def __init__(self, template: bool = False) -> None:
        self.chat_template = "yes" if template else None

    def __call__(
        self, text: str, add_special_tokens: bool = True, verbose: bool = True
    ) -> dict[str, list[int]]:
        return {"input_ids": [1] * add_special_tokens + [ord(c) for c in text]}

    def apply_chat_template(self, messages: Any, tokenize: bool) -> str:
        assert not tokenize
        return "".join(f"<{m['role']}>{m['content']}" for m in messages)


TEXTS = [chr(65 + i) * (5 + i) for i in range(26)]
CHAT = [{"role": "user", "content": "hi there"}, {"role": "assistant", "content": "hello"}]


def test_from_texts_packs_full_rows_from_shuffled_documents() -> None:
    data = calibration.from_texts(TEXTS, Tokenizer(), samples=4, length=16)
    assert data.ids.shape == (4, 16) and data.ids.dtype == torch.int64
    assert (data.ids == 1).sum() >= 2, "each document begins with its special token"
    assert set(data.ids.flatten().tolist()) != {1, 65, 66, 67, 68}, "not the first documents"
    again = calibration.from_texts(iter(TEXTS), Tokenizer(), samples=4, length=16)
    other = calibration.from_texts(TEXTS, Tokenizer(), samples=4, length=16, seed=1)
    assert torch.equal(data.ids, again.ids) and not torch.equal(data.ids, other.ids)


def test_from_texts_takes_windows_from_all_of_a_long_text() -> None:
    text = "".join(chr(100 + i // 100) for i in range(10_000))
    ids = calibration.from_texts([text], Tokenizer(), samples=10, length=50).ids
    assert ids.shape == (10, 50) and int(ids.max()) > 150 and int(ids.min()) < 150


def test_from_texts_without_samples_takes_what_there_is() -> None:
    total = sum(len(text) + 1 for text in TEXTS)
    assert calibration.from_texts(TEXTS, Tokenizer(), length=50).ids.shape == (total // 50, 50)


def test_messages_go_through_the_chat_template_where_there_is_one() -> None:
    def text(data: calibration.Calibration) -> str:
        return "".join(chr(i) for i in data.ids.flatten().tolist())

    assert (
        text(calibration.from_messages([CHAT], Tokenizer(True), length=10))
        == "<user>hi there<assistant>hello"
    )
    assert text(calibration.from_messages([CHAT], Tokenizer(), length=8)) == "\x01hi there\n\nhello"
    rows = [{"messages": CHAT, "text": "plain text"}]
    assert text(calibration.from_dataset(rows, Tokenizer(True), length=6)) == "<user>hi there<assistant>hello"
    assert text(calibration.from_dataset(rows, Tokenizer(), length=11)) == "\x01plain text"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.uint16])
def test_from_ids_uses_exactly_the_first_rows(dtype: torch.dtype) -> None:
    ids = torch.arange(60).view(6, 10).to(dtype)
    assert torch.equal(calibration.from_ids(ids).ids, torch.arange(60).view(6, 10))
    assert torch.equal(calibration.from_ids(ids, 2, 3).ids, torch.tensor([[0, 1, 2], [10, 11, 12]]))
    assert calibration.from_ids(torch.ones(600, 2, dtype=dtype)).ids.shape == (512, 2)


def test_random_draws_every_id_and_says_so() -> None:
    data = calibration.random(7, samples=20, length=30, seed=3)
    assert data.random and set(data.ids.flatten().tolist()) == set(range(7))
    assert torch.equal(data.ids, calibration.random(7, samples=20, length=30, seed=3).ids)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file below the folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_from_file_reads_texts(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"text": text}) for text in TEXTS) + "\n\n"
    jsonl = calibration.from_file(write(tmp_path, "a/x.jsonl", lines), Tokenizer(), samples=4, length=16)
    assert torch.equal(jsonl.ids, calibration.from_texts(TEXTS, Tokenizer(), samples=4, length=16).ids)
    txt = calibration.from_file(write(tmp_path, "a/y.txt", "z" * 40), Tokenizer(), length=20)
    assert txt.ids.shape == (2, 20)
    folder = calibration.from_file(tmp_path, Tokenizer(), length=40)
    assert folder.ids.shape == ((sum(len(t) + 1 for t in TEXTS) + 41) // 40, 40)


def test_from_file_reads_ids(tmp_path: Path) -> None:
    ids = torch.arange(60).view(6, 10)
    np.save(tmp_path / "a.npy", ids.numpy().astype(np.uint16))
    save_file({"input_ids": ids.int(), "other": torch.zeros(1)}, tmp_path / "b.safetensors")
    for name in ("a.npy", "b.safetensors"):
        assert torch.equal(calibration.from_file(tmp_path / name, samples=2).ids, ids[:2])
        assert torch.equal(calibration.from_file(tmp_path / name).ids, ids)
    assert calibration.from_file(tmp_path).ids.shape == (12, 10)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: calibration.from_texts([], Tokenizer()), "no text"),
        (lambda: calibration.from_texts(["", ""], Tokenizer()), "no text"),
        (lambda: calibration.from_texts([b"bytes"], Tokenizer()), "item 0 must be a text; got bytes"),
        (lambda: calibration.from_texts(["short"], Tokenizer(), length=50), "6 tokens; 1 rows of 50"),
        (lambda: calibration.from_texts(TEXTS, Tokenizer(), 400, 16), "400 rows of 16 take 6400"),
        (lambda: calibration.from_texts(TEXTS, Tokenizer(), 0, 16), "samples must be at least 1; got 0"),
        (lambda: calibration.from_texts(TEXTS, Tokenizer(), 1, -3), "length must be at least 1; got -3"),
        (
            lambda: calibration.from_dataset([{"prompt": "x"}], Tokenizer()),
            "row 0 needs 'text' or 'messages'",
        ),
        (lambda: calibration.from_dataset([{"text": 3}], Tokenizer()), "row 0: text must be a string"),
        (lambda: calibration.from_messages([["hi"]], Tokenizer()), "row 0: messages must be"),
        (lambda: calibration.from_ids(torch.zeros(0, 5, dtype=torch.int64)), "neither zero"),
        (lambda: calibration.from_ids(torch.zeros(5, dtype=torch.int64)), r"\(rows, length\)"),
        (lambda: calibration.from_ids([[1, 2], [3]]), "all of one length"),
        (lambda: calibration.from_ids([[1, 2], [-100, 3]]), "id -100 at row 1, position 0 is negative"),
        (lambda: calibration.from_ids([[1.5]]), "must be integers"),
        (lambda: calibration.from_ids([[1, 2]], samples=2), "1 rows; 2 were asked for"),
        (lambda: calibration.from_ids([[1, 2]], length=3), "rows of 2 ids; 3 were asked for"),
        (lambda: calibration.random(0), "vocab_size must be at least 1"),
    ],
)
def test_calibration_refuses(make: Any, text: str) -> None:
    with pytest.raises(CalibrationError, match=text):
        make()


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("x.txt", b"", "the file is empty"),
        ("x.txt", b" \n\n ", "the file is empty"),
        ("x.txt", b"abc\xff\xfe", "not UTF-8 at byte 3"),
        ("x.jsonl", b'{"text": "a"}\n{"text": ', "line 2 is not JSON"),
        ("x.jsonl", b'{"text": "a"}\n[1]', "line 2 must be an object"),
        ("x.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("x.csv", b"a,b", r"no file ends in \.jsonl"),
        ("x.npy", b"", r"not a \.npy file"),
        ("x.npy", b"\x93NUMPY\x01\x00garbage", r"not a \.npy file"),
        ("x.safetensors", b"\xff" * 40, r"not a \.safetensors file"),
    ],
)
def test_from_file_refuses(name: str, content: bytes, text: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(CalibrationError, match=text) as caught:
        calibration.from_file(path, Tokenizer())
    assert str(path) in str(caught.value)


def test_from_file_refuses_what_is_missing_or_mixed(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="does not exist"):
        calibration.from_file(tmp_path / "none.txt", Tokenizer())
    with pytest.raises(CalibrationError, match="no file ends in"):
        calibration.from_file(tmp_path, Tokenizer())
    write(tmp_path, "x.txt", "some text")
    with pytest.raises(CalibrationError, match="need the model's tokenizer"):
        calibration.from_file(tmp_path / "x.txt")
    np.save(tmp_path / "a.npy", np.array([{"pickled": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CalibrationError, match="both texts and token ids"):
        calibration.from_file(tmp_path, Tokenizer())
    with pytest.raises(CalibrationError, match=r"not a \.npy file"):
        calibration.from_file(tmp_path / "a.npy")
