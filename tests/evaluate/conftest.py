# SPDX-License-Identifier: Apache-2.0
"""The tiny models of tests/checkpoint with a tokenizer, quantized copies of them, and a text."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from command import pennyweight  # noqa: F401  (a fixture)
from threads import one_thread  # noqa: F401  (a fixture)
from tiny import tiny_model
from tiny_tokens import tiny_tokenizer

import pennyweight as pw


@pytest.fixture(scope="session")
def model() -> Any:
    """A tiny Llama in bfloat16; not to be changed."""
    return tiny_model("llama")


@pytest.fixture(scope="session")
def quantized(model: Any) -> Any:
    """The same in W4A16-INT by plain rounding, which changes many of its answers."""
    made = copy.deepcopy(model)
    pw.quantize(made, pw.Recipe("W4A16-INT", algorithm="rtn", observer="minmax"), progress=False)
    return made


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, model: Any, quantized: Any) -> Path:
    """A folder with both of them on disk, as `bf16` and `int4`, and a text, `text.txt`."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = tiny_tokenizer()
    model.save_pretrained(root / "bf16")
    tokenizer.save_pretrained(root / "bf16")
    pw.save(quantized, root / "int4", tokenizer=tokenizer)
    (root / "text.txt").write_text(" ".join(f"w{(i * i + 3 * i) % 251}" for i in range(401)))
    return root
