# SPDX-License-Identifier: Apache-2.0
"""Calibration data from files: .jsonl and .txt hold texts, .npy and .safetensors hold token ids (n,
length).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pennyweight.calibration.rows import DEFAULT_LENGTH, Calibration, from_ids
from pennyweight.calibration.texts import from_dataset
from pennyweight.errors import CalibrationError

TEXTS = (".jsonl", ".txt")
IDS = (".npy", ".safetensors")


def from_file(
    path: str | Path,
    tokenizer: Any = None,
    samples: int | None = None,
    length: int | None = None,
    seed: int = 0,
) -> Calibration:
    """Read calibration data from a file, or from all such files below a folder.

    Args:
        path: A .jsonl file (a `text` or `messages` in each line), a .txt file, a .npy or .safetensors file
            of token ids (n, length), or a folder of texts or of ids.
        tokenizer: The model's; needed for texts.
        samples: Rows. Of ids exactly the first so many are used; by default 512, or as many as there are.
        length: Tokens of a row: of texts 2048 by default; ids are used at the length they have.
        seed: Of the shuffle of texts.
    Raises:
        CalibrationError: The file is missing, empty, not UTF-8, not what its ending says, or too short.
    """
    root = Path(path)
    files = _files(root)
    if files[0].suffix in IDS:
        tensors = [read_ids(file) for file in files]
        widths = {tuple(tensor.shape[1:]) for tensor in tensors}
        if len(widths) > 1:
            raise CalibrationError(f"calibration ({root}): its files of ids differ in length; give one file")
        return from_ids(torch.cat(tensors), samples, length, source=str(root))
    if tokenizer is None:
        raise CalibrationError(
            f"calibration ({root}): texts need the model's tokenizer; give it, or a file of token ids"
        )
    rows = [row for file in files for row in read_texts(file)]
    return from_dataset(rows, tokenizer, samples, length or DEFAULT_LENGTH, seed, source=str(root))


def _files(root: Path) -> list[Path]:
    if not root.exists():
        raise CalibrationError(f"calibration: {root} does not exist; give a file or a folder")
    files = (
        sorted(p for p in root.rglob("*") if p.suffix in TEXTS + IDS and p.is_file())
        if root.is_dir()
        else [root]
    )
    if not files or files[0].suffix not in TEXTS + IDS:
        raise CalibrationError(f"calibration ({root}): no file ends in {', '.join(TEXTS + IDS)}")
    kinds = {file.suffix in IDS for file in files}
    if len(kinds) > 1:
        raise CalibrationError(
            f"calibration ({root}): the folder holds both texts and token ids; give one of them"
        )
    return files


def read_texts(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a .jsonl file, each with `text` or `messages`; of any other file its text."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError(
            f"calibration ({file}): not UTF-8 at byte {error.start}; convert the file"
        ) from None
    except OSError as error:
        raise CalibrationError(f"calibration ({file}): cannot be read: {error.strerror}") from None
    if not text.strip():
        raise CalibrationError(f"calibration ({file}): the file is empty")
    if file.suffix != ".jsonl":
        yield {"text": text}
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _row(file, number, line)


def _row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise CalibrationError(f"calibration ({file}): line {number} is not JSON: {error}") from None
    if not isinstance(row, dict) or not ("text" in row or "messages" in row):
        raise CalibrationError(
            f"calibration ({file}): line {number} must be an object with 'text' or 'messages'"
        )
    return row


def read_ids(file: Path) -> Tensor:
    """Return all token ids (n, length) of a .npy or .safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".npy":
            array = np.load(file, allow_pickle=False)
            tensors = {"": torch.from_numpy(array.astype(np.int64) if array.dtype.kind in "iu" else array)}
        else:
            tensors = load_file(file)
    except (OSError, ValueError, TypeError, EOFError, SafetensorError) as error:
        raise CalibrationError(
            f"calibration ({file}): not a {file.suffix} file of token ids: {error}"
        ) from None
    tensor = tensors.get("input_ids", next(iter(tensors.values()))) if tensors else torch.empty(0)
    if len(tensors) > 1 and "input_ids" not in tensors:
        raise CalibrationError(
            f"calibration ({file}): it must hold one tensor, or one called input_ids; has {len(tensors)}"
        )
    return from_ids(tensor, samples=max(len(tensor), 1) if tensor.dim() else 1, source=str(file)).ids
