# SPDX-License-Identifier: Apache-2.0
"""The tokenizer beside a model's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pennyweight.errors import CheckpointError

FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def load_tokenizer(path: Path) -> Any:
    """Return the tokenizer in a model's folder; None where it has none.

    Raises:
        CheckpointError: It is there and cannot be loaded.
    """
    from transformers import AutoTokenizer

    if not any((path / name).exists() for name in FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # tokenizer classes fail each in its own way
        raise CheckpointError(f"{path}: its tokenizer cannot be loaded: {error}") from error
