# SPDX-License-Identifier: Apache-2.0
"""Read the held-out files, and calibration windows from the training files.

`heldout.json` names the files the demo model never saw. A running Python may
lack some or carry other versions; those are reported on stderr and left out.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import corpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MANIFEST = Path(__file__).with_name("heldout.json")


def write_manifest() -> None:
    """List the running Python's held-out files in `heldout.json`."""
    files = []
    for name in filter(corpus.is_held_out, corpus.library_files()):
        if data := (corpus.stdlib() / name).read_bytes():
            digest = hashlib.sha256(data).hexdigest()
            files.append({"path": name, "sha256": digest, "bytes": len(data)})
    manifest = {"python": platform.python_version(), "files": files}
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n")


def _fault(entry: dict[str, str]) -> str:
    path = corpus.stdlib() / entry["path"]
    if not path.is_file():
        return "missing"
    same = hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
    return "" if same else "changed"


def heldout_texts() -> list[str]:
    """Read the held-out files that are present and unchanged."""
    names = []
    for entry in json.loads(MANIFEST.read_text())["files"]:
        if fault := _fault(entry):
            print(f"held-out file left out, {fault}: {entry['path']}", file=sys.stderr)
        else:
            names.append(entry["path"])
    return list(corpus.texts(names))


def heldout_ids(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return the held-out text as one stream of tokens: int64 [tokens]."""
    return corpus.encode(tokenizer, heldout_texts())


def calibration_ids(
    tokenizer: PreTrainedTokenizerBase, windows: int = 64, length: int = 512, seed: int = 0
) -> torch.Tensor:
    """Draw windows from as many training files: int64 [windows, length]."""
    random = torch.Generator().manual_seed(seed)
    names = corpus.training_files()
    order = torch.randperm(len(names), generator=random).tolist()
    rows: list[torch.Tensor] = []
    for text in corpus.texts(names[i] for i in order):
        ids = corpus.encode(tokenizer, [text])
        if len(ids) >= length and len(rows) < windows:
            start = int(torch.randint(len(ids) - length + 1, (), generator=random))
            rows.append(ids[start : start + length])
        if len(rows) == windows:
            break
    return torch.stack(rows)
