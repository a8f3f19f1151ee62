# SPDX-License-Identifier: Apache-2.0
"""Datasets in a local folder, checked before anything runs: what is missing is named, and where it belongs.

    DATASETS/<name>/<split>.jsonl                      a dataset without configurations
    DATASETS/<name>/<config>/<split>.jsonl             one with them

In place of `<split>.jsonl`: `.json` (a list), `.csv`, `.parquet`, or the shards `<split>-00000-of-00002.parquet` that
the Hugging Face hub keeps, also in a folder `data/`; so a downloaded copy of a dataset's repository is read as it is.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pennyweight.errors import EvaluationError

if TYPE_CHECKING:
    from pennyweight.evaluate.needs import Need

Row = dict[str, Any]
ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


def check(root: Path | None, need: Need, config: str | None, splits: Sequence[str]) -> None:
    """Raise EvaluationError where a file of the dataset is missing, or the first row of one lacks a column.

    Args:
        root: The folder of datasets.
        need: The dataset.
        config: Its configuration; None: it has none.
        splits: That are read.
    """
    for split in splits:
        for path in find(root, need, config, split):
            for row in _rows(path):
                _check_row(path, 1, row, need)
                break
            else:
                raise EvaluationError(f"{path}: has no rows; {_hint(need)}")


def read(root: Path | None, need: Need, config: str | None, split: str) -> list[Row]:
    """Return the rows of a split, all columns of each; EvaluationError by file and row where one is missing."""
    rows: list[Row] = []
    for path in find(root, need, config, split):
        for number, row in enumerate(_rows(path), 1):
            rows.append(_check_row(path, number, row, need))
    return rows


def find(root: Path | None, need: Need, config: str | None, split: str) -> list[Path]:
    """Return the files of a split, in order; EvaluationError where there is none."""
    folder = dataset_folder(root, need)
    if config is not None:
        folder = folder / config
    for place in (folder, folder / "data"):
        for ending in ENDINGS:
            whole = place / f"{split}{ending}"
            found = [whole] if whole.is_file() else sorted(place.glob(f"{split}-*-of-*{ending}"))
            if found:
                return found
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found_there = f"it has {', '.join(there[:8])}" if there else f"{folder} is not there"
    raise EvaluationError(
        f"dataset {need.name!r}: no split {split!r}: {found_there}; put {split}.jsonl (or .json, .csv, .parquet) into "
        f"{folder}. {_hint(need)}"
    )


def dataset_folder(root: Path | None, need: Need) -> Path:
    """Return the folder of a dataset; EvaluationError where it is not there."""
    if root is None:
        raise EvaluationError(
            f"dataset {need.name!r} is needed: give the folder of datasets (--datasets DIR), it in DIR/{need.name}. "
            f"{_hint(need)}"
        )
    folder = root / need.name
    if not folder.is_dir():
        raise EvaluationError(f"dataset {need.name!r}: {folder} is not there. {_hint(need)}")
    return folder


def _hint(need: Need) -> str:
    return f"{need.name}: {need.layout} Published as {need.hub}"


def _check_row(path: Path, number: int, row: Any, need: Need) -> Row:
    if not isinstance(row, Mapping):
        raise EvaluationError(f"{path}: row {number} is no object but {type(row).__name__}; {_hint(need)}")
    missing = [name for name in need.columns if name not in row]
    if missing:
        raise EvaluationError(
            f"{path}: row {number} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, row))}. "
            f"{_hint(need)}"
        )
    return dict(row)


def _rows(path: Path) -> Iterator[Any]:
    """Yield the rows of a file."""
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".csv":
            with open(path, encoding="utf-8", newline="") as file:
                yield from csv.DictReader(file)
        elif path.suffix == ".json":
            yield from json.loads(path.read_text(encoding="utf-8"))
        else:
            yield from _lines(path)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise EvaluationError(f"{path}: is damaged or no {path.suffix} file: {error}") from error


def _lines(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None


def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise EvaluationError(
            f'{path}: reading .parquet needs pyarrow; run: pip install "pennyweight[lm-eval]", or give .jsonl'
        ) from None
    with parquet.ParquetFile(path) as file:  # pyarrow's errors are ValueError and OSError
        for batch in file.iter_batches():
            yield from batch.to_pylist()
