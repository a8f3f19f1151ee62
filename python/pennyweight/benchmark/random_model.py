# SPDX-License-Identifier: Apache-2.0
"""Models of a given shape with random weights: speed without a checkpoint."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pennyweight.errors import MeasurementError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFIX = "random:"
_LLAMA = {
    "model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}  # fmt: skip
#: By name, in the words of transformers' configs (from the models' own config.json; rotary scaling left out).
SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        **_LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "head_dim": 64, "tie_word_embeddings": True,
    },
    "llama-3.2-3b": {
        **_LLAMA, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
        "head_dim": 128, "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {
        **_LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "head_dim": 128, "tie_word_embeddings": False,
    },
}  # fmt: skip


def build(name: str, seed: int = 0, device: str | None = None) -> PreTrainedModel:
    """Make a model in bfloat16 with random weights.

    Args:
        name: Of `SHAPES`, or a config.json or the folder that has one.
        seed: Of the weights.
        device: Where it is made; None: the CPU.
    Raises:
        MeasurementError: No shape has this name, or transformers makes no model of the config.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = (
            AutoConfig.for_model(**SHAPES[name])
            if name in SHAPES
            else AutoConfig.from_pretrained(_file(name))
        )
        with torch.random.fork_rng(devices=[]), torch.device(device or "cpu"):
            torch.manual_seed(seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=torch.bfloat16
            )
    except MeasurementError:
        raise
    except Exception as error:  # configs are checked by each model class in its own way
        text = " ".join(str(error).split())
        raise MeasurementError(f"{PREFIX}{name}: transformers makes no model of it: {text:.300}") from error
    model.train(False).requires_grad_(False)
    return model


def _file(name: str) -> Path:
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        near = difflib.get_close_matches(name, SHAPES, cutoff=0.4) or list(SHAPES)
        raise MeasurementError(
            f"{PREFIX}{name}: is neither a shape that is known ({', '.join(near)}) nor a config.json or its folder"
        )
    return path
