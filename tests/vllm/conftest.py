# SPDX-License-Identifier: Apache-2.0
"""vLLM's environment, and the demo model in every format."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "demo"))

from vllm_environment import SCHEMES

import pennyweight as pw

SOURCE = Path(__file__).parents[2] / "demo" / "model"


@pytest.fixture(scope="session")
def interpreter() -> str:
    path = os.environ.get("PENNYWEIGHT_VLLM")
    if not path:
        pytest.skip("needs vLLM's own environment: make test-vllm")
    return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo model and its three formats, as folders."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import heldout

    out = tmp_path_factory.mktemp("checkpoints")
    tokenizer = AutoTokenizer.from_pretrained(SOURCE)
    data = heldout.calibration_ids(tokenizer, 64, 512)
    folders = {"BF16": SOURCE}
    for scheme in SCHEMES:
        model = AutoModelForCausalLM.from_pretrained(SOURCE, dtype="auto")
        recipe = pw.Recipe(scheme)
        pw.quantize(model, recipe, calibration=data if recipe.needs_calibration else None, progress=False)
        folders[scheme] = out / scheme
        pw.save(model, folders[scheme], tokenizer=tokenizer)
    return folders
