# SPDX-License-Identifier: Apache-2.0
"""Text or token ids to measure a model on, as windows.

    stream  t0 t1 t2 t3 t4 t5 t6 t7 ...        windows of length 4 share their ends, so that each token but the
    rows    [t0 t1 t2 t3 t4]                   stream's first is predicted once, from those before it in its
                        [t4 t5 t6 t7 ...]      window

Rows of a file of ids (n, length) stay as they are.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pennyweight.calibration.files import IDS, read_ids, read_texts
from pennyweight.errors import CalibrationError, EvaluationError


@dataclass(frozen=True)
class Text:
    """Windows of tokens.

    Attributes:
        rows: Token ids, int64 (length,) each, at least 2; all but the first of each row are predicted.
        sizes: Bytes of UTF-8 text that each row's predicted tokens stand for; None where no one knows.
        source: Where it came from.
    """

    rows: list[Tensor]
    sizes: list[int] | None
    source: str

    @property
    def tokens(self) -> int:
        """How many tokens are predicted."""
        return sum(len(row) - 1 for row in self.rows)


def read_text(data: Any, tokenizer: Any, length: int, limit: int | None = None) -> Text:
    """Return windows of what a user gives.

    Args:
        data: A file of text (.jsonl: `text` or `messages` in each line; anything else as it is), of token ids (.npy,
            .safetensors; (n, length), of which a single row is a stream), a folder of texts, texts, or token ids.
        tokenizer: The model's; needed for texts, and to count the bytes of ids.
        length: Tokens predicted per window, of texts and streams.
        limit: Only so many windows, taken at even distances.
    Raises:
        EvaluationError: There is no such file, it is empty, or not what its ending says.
    """
    if data is None:
        raise EvaluationError(
            "quick: needs text to measure on; give --data FILE (or data=): text, or token ids"
        )
    try:
        documents, ids, source = _read(data)
    except CalibrationError as error:
        raise EvaluationError(str(error).replace("calibration", "data", 1)) from None
    if ids is not None:
        rows = windows(ids[0], length) if len(ids) == 1 else list(ids)
        sizes = None if tokenizer is None else [len(tokenizer.decode(row[1:]).encode()) for row in rows]
    else:
        if tokenizer is None:
            raise EvaluationError(
                f"quick: {source} is text and there is no tokenizer; give one, or token ids"
            )
        stream, ends = _encode(documents, tokenizer)
        rows = windows(stream, length)
        sizes = None if ends is None else _row_sizes(ends, rows)
    if not rows:
        raise EvaluationError(f"quick: {source} has fewer than 2 tokens; give more text")
    kept = (
        range(len(rows))
        if limit is None or limit >= len(rows)
        else [i * len(rows) // limit for i in range(limit)]
    )
    return Text([rows[i] for i in kept], None if sizes is None else [sizes[i] for i in kept], source)


def windows(stream: Tensor, length: int) -> list[Tensor]:
    """Cut a stream of ids (tokens,) so that each but the first is predicted once; the last row may be shorter."""
    return [stream[i : i + length + 1] for i in range(0, len(stream) - 1, length)]


def digest(data: Any) -> str | None:
    """Return a hash of what `read_text` would read, without reading it as text."""
    if data is None:
        return None
    found = hashlib.sha256()
    if isinstance(data, Path) or (isinstance(data, str) and _is_path(data)):
        for path in _files(Path(data)):
            found.update(path.read_bytes())
    elif isinstance(data, str) or not isinstance(data, (Sequence, Iterable)):
        found.update(str(data).encode())
    elif isinstance(data, Tensor):
        found.update(data.cpu().contiguous().numpy().tobytes())
    else:
        found.update("\0".join(map(str, data)).encode())
    return found.hexdigest()


def _is_path(data: str) -> bool:
    """A string is a path unless it cannot be one: users give texts as a list."""
    return "\n" not in data and len(data) < 4096


def _read(data: Any) -> tuple[list[str], Tensor | None, str]:
    """Return documents, or ids (n, length), and where they came from."""
    if isinstance(data, (str, Path)):
        path = Path(data)
        files = _files(path)
        if files[0].suffix in IDS:
            return [], read_ids(files[0]), str(path)
        return [text for file in files for text in _texts(file)], None, str(path)
    if isinstance(data, Tensor) or hasattr(data, "__array__"):
        ids = torch.as_tensor(data)
        return [], _checked(ids), f"ids {list(ids.shape)}"
    texts = list(data)
    if texts and all(isinstance(text, str) for text in texts):
        return texts, None, f"{len(texts)} texts"
    raise EvaluationError("quick: data must be a file, texts, or token ids (n, length); got neither")


def _checked(ids: Tensor) -> Tensor:
    from pennyweight.calibration import from_ids

    rows = ids[None] if ids.dim() == 1 else ids
    return from_ids(rows, samples=max(len(rows), 1), source="data").ids


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise EvaluationError(f"quick: {path} does not exist; give a file or a folder of texts or token ids")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not files:
        raise EvaluationError(f"quick: {path} is an empty folder; give a file or a folder of texts")
    return files


def _texts(file: Path) -> Iterable[str]:
    for row in read_texts(file):
        if isinstance(row.get("text"), str):
            yield row["text"]
        elif isinstance(row.get("messages"), list):
            yield "\n\n".join(str(message.get("content", "")) for message in row["messages"])


def _encode(documents: list[str], tokenizer: Any) -> tuple[Tensor, Tensor | None]:
    """Return all documents' tokens (n,) and how many bytes of text end with each; None without offsets."""
    fast = bool(getattr(tokenizer, "is_fast", False))
    ids: list[int] = []
    ends: list[int] = []
    total = 0
    for text in documents:
        if not text:
            continue
        found = tokenizer(text, return_offsets_mapping=fast, verbose=False)
        ids += found["input_ids"]
        if fast:
            bytes_before = [0, *itertools.accumulate(len(character.encode()) for character in text)]
            last = 0
            for _, end in found["offset_mapping"]:
                last = max(last, end)  # special tokens end at 0
                ends.append(total + bytes_before[last])
            total += bytes_before[-1]
            if ends:
                ends[-1] = total  # what no token covers belongs to the last
    return torch.tensor(ids, dtype=torch.int64), torch.tensor(ends) if fast else None


def _row_sizes(ends: Tensor, rows: list[Tensor]) -> list[int]:
    """Bytes of each row's predicted tokens: from the end of its first token to that of its last."""
    places = [0, *itertools.accumulate(len(row) - 1 for row in rows)]
    return [int(ends[b] - ends[a]) for a, b in itertools.pairwise(places)]
