# SPDX-License-Identifier: Apache-2.0
"""Shapes of models, from which bytes and operations follow: by name from data/models.json, or from a config.json."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pennyweight.errors import MeasurementError
from pennyweight.json_file import read_json
from pennyweight.recommend.gpus import DATA
from pennyweight.recommend.names import find, plain
from pennyweight.schemes import scheme

#: What a shape needs of a config.json.
WORDS = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")
#: Bytes of an unquantized number.
WORD_BYTES = 2


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes, as transformers' configurations name them.

    Attributes:
        name: For instance "llama-3.1-8b".
        source: Where the sizes are from.
    """

    name: str
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    source: str

    @property
    def linear(self) -> int:
        """Weights of the linear layers in the blocks: what is quantized."""
        heads, shared = (n * self.head_dim for n in (self.num_attention_heads, self.num_key_value_heads))
        attention = self.hidden_size * (2 * heads + 2 * shared)
        return self.num_hidden_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def head(self) -> int:
        """Weights of the LM head, read once for every step of decoding."""
        return self.hidden_size * self.vocab_size

    @property
    def parameters(self) -> int:
        """Weights of all, norms and biases left out (less than a thousandth)."""
        return self.linear + self.head * (1 if self.tie_word_embeddings else 2)

    @property
    def kv_bytes(self) -> int:
        """Of one token's keys and values in 16 bits, in all layers."""
        return 2 * WORD_BYTES * self.num_hidden_layers * self.num_key_value_heads * self.head_dim

    @property
    def activation_bytes(self) -> int:
        """That one token's inputs and outputs of linear layers take in 16 bits, in all layers."""
        heads, shared = (n * self.head_dim for n in (self.num_attention_heads, self.num_key_value_heads))
        read = 2 * self.hidden_size + heads + self.intermediate_size
        written = heads + 2 * shared + 2 * self.hidden_size + 2 * self.intermediate_size
        return WORD_BYTES * self.num_hidden_layers * (read + written)

    def read_bytes(self, format_: str) -> float:
        """Return bytes of weights that every step reads: linear layers in the format, LM head in 16 bits."""
        return self.linear * bits(format_) / 8 + self.head * WORD_BYTES

    def weight_bytes(self, format_: str) -> float:
        """Return bytes of all weights in the format, as a checkpoint holds them."""
        return self.linear * bits(format_) / 8 + (self.parameters - self.linear) * WORD_BYTES

    def same(self, other: Shape) -> bool:
        """Whether the other takes as long for the same work: all sizes are equal."""
        return replace(self, name="", source="") == replace(other, name="", source="")


def bits(format_: str) -> float:
    """Return bits of a weight, with its share of a group's 16-bit scale."""
    if format_ == "BF16":
        return 8.0 * WORD_BYTES
    found = scheme(format_)
    return found.bits + (0.0 if found.group_size == -1 else 16 / found.group_size)


def shape(model: str | Path) -> Shape:
    """Return the shape of a model.

    Args:
        model: A name ("llama-3.1-70b", "meta-llama/Llama-3.1-70B-Instruct"), or a folder with a config.json.
    Raises:
        MeasurementError: The name is not known (the text has the nearest), or the folder's config.json is no decoder's.
    """
    folder = Path(model)
    if folder.is_dir():
        return _of_folder(folder)
    short = re.sub(r"^meta|instruct(v[0-9.]+)?$", "", plain(str(model)))
    return known().get(short) or find(str(model), known(), "model", names())


def from_config(config: Mapping[str, Any], name: str, source: str) -> Shape:
    """Return the shape that a configuration of transformers has.

    Raises:
        MeasurementError: A size is missing or not a whole number of one or more.
    """
    sizes: dict[str, Any] = {word: config.get(word) for word in WORDS}
    sizes["num_key_value_heads"] = config.get("num_key_value_heads") or sizes["num_attention_heads"]
    heads, hidden = sizes["num_attention_heads"], sizes["hidden_size"]
    given = config.get("head_dim")
    sizes["head_dim"] = given or (hidden // heads if _size(heads) and _size(hidden) else None)
    wrong = [f"{word} = {value!r}" for word, value in sizes.items() if not _size(value)]
    if wrong:
        raise MeasurementError(f"{source}: is no decoder's configuration: {', '.join(wrong)}")
    tied = bool(config.get("tie_word_embeddings", False))
    return Shape(name=name, source=source, tie_word_embeddings=tied, **sizes)


def names() -> list[str]:
    """Return the names of all models."""
    return [one.name for one in known().values()]


@functools.cache
def known() -> dict[str, Shape]:
    """Return all models by plain name."""
    raw = json.loads((DATA / "models.json").read_text(encoding="utf-8"))
    return {plain(one["name"]): Shape(**one) for one in raw["models"]}


def _of_folder(folder: Path) -> Shape:
    file = folder / "config.json"
    config = read_json(file, MeasurementError)
    if not isinstance(config, dict):
        raise MeasurementError(f"{file}: is no decoder's configuration")
    return from_config(config, folder.resolve().name, str(file))


def _size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
