# SPDX-License-Identifier: Apache-2.0
"""The demo's text: Python's own library sources, split by file name.

Nothing of the text is stored in the repository. The files are read where the
running Python keeps them, so another Python version sees (mostly) other text.
"""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from transformers import PreTrainedTokenizerBase

#: Folders left out: installed packages, tests (many systems ship none) and
#: the code-page tables, which are long and trivially predictable.
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings"}
#: One file in this many is held out.
HOLD_OUT = 15


def stdlib() -> Path:
    """Return the folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def is_held_out(name: str) -> bool:
    """Tell whether a file, named relative to the library, is held out."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HOLD_OUT == 0


def _is_wanted(path: Path) -> bool:
    built = path.name.startswith(("_sysconfigdata", "sitecustomize"))
    config = any(part.startswith("config-") for part in path.parts)
    return not (built or config or SKIPPED & set(path.parts))


def library_files() -> list[str]:
    """List the library's source files, sorted, relative to `stdlib()`."""
    root = stdlib()
    paths = (path.relative_to(root) for path in root.rglob("*.py"))
    return sorted(path.as_posix() for path in paths if _is_wanted(path))


def texts(names: Iterable[str]) -> Iterator[str]:
    """Yield the text of each named file that is not empty and is UTF-8."""
    for name in names:
        try:
            text = (stdlib() / name).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text:
            yield text


def training_files() -> list[str]:
    """List the files that are not held out."""
    return [name for name in library_files() if not is_held_out(name)]


def encode(tokenizer: PreTrainedTokenizerBase, documents: Iterable[str]) -> torch.Tensor:
    """Join documents, each between begin and end tokens where there are such: int64 [tokens]."""
    begin, end = ([] if t is None else [t] for t in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    ids: list[int] = []
    for text in documents:
        body = tokenizer.encode(text, add_special_tokens=False, verbose=False)
        ids += [*begin, *body, *end]
    return torch.tensor(ids, dtype=torch.int64)
