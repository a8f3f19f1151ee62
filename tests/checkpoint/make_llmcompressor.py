# SPDX-License-Identifier: Apache-2.0
"""Write tests/checkpoint/fixtures/: small checkpoints made by llm-compressor from `tiny.tiny_model("llama")`.

llm-compressor cannot share an environment with vLLM or with us (it pins compressed-tensors); it runs alone:

    python -m venv llmc && llmc/bin/pip install torch==2.13.0 llmcompressor==0.14.0.1
    llmc/bin/python tests/checkpoint/make_llmcompressor.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import torch
from compressed_tensors.quantization import preset_name_to_scheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from tiny import tiny_ids, tiny_model  # noqa: E402


def recipe(scheme: str) -> object:
    """The study's algorithm per scheme; W4A16_ASYM and FP8_DYNAMIC by round-to-nearest."""
    modifier = GPTQModifier if scheme in ("W8A8", "W4A16") else QuantizationModifier
    groups = {"group_0": preset_name_to_scheme(scheme, ["Linear"])}
    return modifier(config_groups=groups, ignore=["lm_head"])


def processor() -> PreTrainedTokenizerFast:
    """llm-compressor asks for a tokenizer even for data that is token ids already."""
    words = {str(i): i for i in range(256)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="0")), pad_token="0")


def make(scheme: str, base: Path) -> None:
    ids = tiny_ids(16, 64)
    data = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    model = oneshot(
        model=str(base), dataset=data, recipe=recipe(scheme), max_seq_length=64, num_calibration_samples=16
    )
    out = HERE / "fixtures" / scheme
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out, save_compressed=True)
    (out / "model.safetensors").chmod(0o644)
    (out / "recipe.yaml").unlink(missing_ok=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # llm-compressor reads the model's folder besides the model
        tiny_model("llama", dtype=torch.bfloat16).save_pretrained(folder)
        processor().save_pretrained(folder)
        for each in ("FP8_DYNAMIC", "W8A8", "W4A16", "W4A16_ASYM"):
            make(each, Path(folder))
