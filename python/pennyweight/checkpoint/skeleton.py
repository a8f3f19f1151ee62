# SPDX-License-Identifier: Apache-2.0
"""A model of transformers without weights: parameters on the meta device, buffers real.

Buffers that no checkpoint holds (the rotary embedding's frequencies) are computed by the model's own
constructor, so they must be real; parameters come from the checkpoint: to allocate or initialize them would
be wasted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pennyweight.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def meta_parameters() -> Iterator[None]:
    """While active, every parameter that a module registers moves to the meta device."""

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> Any:
        if parameter is None or parameter.is_meta:
            return None  # keep it as it is
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    hook = nn.modules.module.register_module_parameter_registration_hook(to_meta)
    try:
        yield
    finally:
        hook.remove()


def build_skeleton(path: Path, dtype: torch.dtype | None) -> PreTrainedModel:
    """Build the model that ``path``/config.json describes, without weights, in eval mode.

    Args:
        path: A checked folder.
        dtype: Of the parameters; None: what the config says, float32 where it says nothing.
    Raises:
        CheckpointError: transformers cannot build it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        with meta_parameters():
            model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=dtype or config.dtype or torch.float32
            )
    except Exception as error:  # configs are checked by each model class in its own way
        text = " ".join(str(error).split())
        raise CheckpointError(
            f"{path / 'config.json'}: transformers cannot build this model: {text:.300}"
        ) from error
    model.train(False)
    return model


def tied_names(model: nn.Module) -> dict[str, str]:
    """Names of parameters that are another parameter under a second name, each with the first name."""
    first: dict[int, str] = {}
    tied = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            tied[name] = first[id(parameter)]
    return tied
