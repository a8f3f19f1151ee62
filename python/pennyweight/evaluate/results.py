# SPDX-License-Identifier: Apache-2.0
"""The JSON of one model, written whole and read strictly, and the store from which a stopped run goes on.

    OUT/<model>.json            schema, pennyweight, model, baseline, suites, versions, seed, sha256
    OUT/.resume/<model>/<suite>-<fingerprint>.jsonl   finished items of a suite that is not finished

`sha256` is that of all the rest, so that a file changed by hand is not taken for a measurement.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pennyweight.errors import EvaluationError
from pennyweight.files import write_text
from pennyweight.json_file import check_keys, checksum, read_json

#: Version of the keys of a model's JSON.
SCHEMA = 1
KEYS: dict[str, type | tuple[type, ...]] = {
    "pennyweight": str, "model": dict, "baseline": (dict, type(None)), "suites": dict, "versions": dict, "seed": int,
    "sha256": str,
}  # fmt: skip
SUITE_KEYS: dict[str, type | tuple[type, ...]] = {
    "metrics": dict, "tasks": dict, "recovery": (dict, type(None)), "pairs": (dict, type(None)), "items": list,
    "notes": list, "partial": bool, "seconds": (int, float), "options": dict,
}  # fmt: skip


def file_name(name: str) -> str:
    """Return a model's name as a file name, without its ending."""
    return "".join(c if c.isalnum() or c in "-_.+" else "-" for c in name).strip(".") or "model"


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a model's result beside its place and move it in, with its checksum.

    Raises:
        EvaluationError: It cannot be written, or holds NaN or Inf.
    """
    try:
        text = json.dumps(sealed(result), indent=1, allow_nan=False)
    except ValueError as error:
        raise EvaluationError(
            f"{path}: a result holds NaN or Inf, which is no measurement: {error}"
        ) from error
    write_text(path, text + "\n", EvaluationError)


def sealed(result: dict[str, Any]) -> dict[str, Any]:
    """Return a model's result with its schema and checksum; ValueError where it holds NaN or Inf."""
    body = {
        "schema": SCHEMA,
        **{key: value for key, value in result.items() if key not in ("schema", "sha256")},
    }
    return {**body, "sha256": checksum(body)}


def read(path: str | Path) -> dict[str, Any]:
    """Read a model's result.

    Raises:
        EvaluationError: It is missing, truncated, of another version, changed by hand, or no result at all.
    """
    path = Path(path)
    return check(path, read_json(path, EvaluationError))


def check(path: str | Path, result: Any) -> dict[str, Any]:
    """Return a model's result if it is one, whole and unchanged; `path` is what an error names.

    Raises:
        EvaluationError: It is of another version, changed by hand, or no result at all.
    """
    if not isinstance(result, dict) or "schema" not in result:
        raise EvaluationError(f"{path}: is no result of pennyweight evaluate: it has no schema")
    if result["schema"] != SCHEMA:
        raise EvaluationError(
            f"{path}: has schema {result['schema']!r}, this pennyweight reads {SCHEMA}; run the evaluation again, or "
            f"read it with pennyweight {result.get('pennyweight', 'of its time')}"
        )
    check_keys(path, "", result, KEYS, EvaluationError)
    for name, suite in result["suites"].items():
        check_keys(path, f"suites.{name}", suite, SUITE_KEYS, EvaluationError)
    if checksum({key: value for key, value in result.items() if key != "sha256"}) != result["sha256"]:
        raise EvaluationError(
            f"{path}: was changed after it was written (its sha256 differs); run the evaluation again"
        )
    return result


class Store:
    """Finished items of one suite on one model: in memory and, given a path, on disk as they come.

    Args:
        path: A .jsonl file; what it holds already counts as done. None: memory alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._items: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._items = dict(_lines(path))

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the item of that key, or None where it is still to be done."""
        return self._items.get(key)

    def put(self, key: str, item: dict[str, Any]) -> dict[str, Any]:
        """Keep a finished item (plain values) and return it as it will be read again."""
        line = json.dumps({"key": key, "item": item}, allow_nan=False)
        self._items[key] = json.loads(line)["item"]
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            except OSError as error:
                raise EvaluationError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        return self._items[key]

    def items(self) -> list[dict[str, Any]]:
        """Return all finished items, in the order in which they were put."""
        return list(self._items.values())

    def clear(self) -> None:
        """Forget everything: the suite is done."""
        self._items = {}
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            for folder in (self.path.parent, self.path.parent.parent):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the whole lines of a store; one that a stopped run left half written is done again.

    The half line is cut off, since the next item will be appended to the file.
    """
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    for line in data[:whole].decode("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
            yield entry["key"], entry["item"]
        except (ValueError, KeyError, TypeError):
            continue
