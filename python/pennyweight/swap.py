# SPDX-License-Identifier: Apache-2.0
"""Where a model's linear layers are, and how one is put in another's place.

Found by structure, not by model class: the decoder blocks are the `nn.ModuleList` of like modules that hold
the most linear layers. So Llama, Qwen2, Qwen3, Mistral and whatever is built like them need no code of their
own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from pennyweight.errors import UnsupportedError
from pennyweight.layers import QuantizedLinear


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Find the decoder blocks of a model.

    Args:
        model: Any module; its layers may be quantized already.
    Returns:
        The name of the list in the model ("model.layers") and the list.
    Raises:
        UnsupportedError: No list of like blocks with linear layers is there.
    """
    best: tuple[int, str, nn.ModuleList] | None = None
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1:
            count = sum(isinstance(m, (nn.Linear, QuantizedLinear)) for m in module.modules())
            if count and (best is None or count > best[0]):
                best = count, name, module
    if best is None:
        raise UnsupportedError(
            f"{type(model).__name__} has no nn.ModuleList of like blocks that hold nn.Linear layers; "
            f"pennyweight quantizes decoder models such as Llama"
        )
    return best[1], best[2]


def target_linears(model: nn.Module, ignore: Iterable[str] = ()) -> dict[str, nn.Linear]:
    """Return every `nn.Linear` inside the decoder blocks by its full name, less those to ignore.

    Args:
        model: The model; embeddings and the LM head lie outside the blocks and are never among the result.
        ignore: Exact module names, or "re:" and a regular expression that a name's start must match.
    Raises:
        UnsupportedError: An entry of `ignore` matches no module of the whole model ("lm_head" may always be
            named), or there are no decoder blocks.
    """
    entries = list(ignore)
    check_ignore(model, entries)
    prefix, blocks = decoder_blocks(model)
    return {
        f"{prefix}.{name}": module
        for name, module in blocks.named_modules()
        if isinstance(module, nn.Linear) and not any(_matches(entry, f"{prefix}.{name}") for entry in entries)
    }


def check_ignore(model: nn.Module, ignore: Iterable[str]) -> None:
    """Raise UnsupportedError for an entry that matches no module of the whole model, with the nearest
    names.
    """
    names = [name for name, _ in model.named_modules()]
    for entry in ignore:
        if entry != "lm_head" and not any(_matches(entry, name) for name in names):
            near = difflib.get_close_matches(entry, names, n=3, cutoff=0.4)
            hint = f"; near: {', '.join(near)}" if near else ""
            raise UnsupportedError(f"ignore: {entry!r} matches no module of {type(model).__name__}{hint}")


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the module called `name` is; training mode is carried over."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    module.train(getattr(owner, child).training)
    setattr(owner, child, module)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while; each place in the model gets its mode back, whatever is there by then."""
    training = [name for name, module in model.named_modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for name in training:
            model.get_submodule(name).training = True


def _matches(entry: str, name: str) -> bool:
    return re.match(entry[3:], name) is not None if entry.startswith("re:") else entry == name
