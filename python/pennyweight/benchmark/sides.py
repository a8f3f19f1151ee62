# SPDX-License-Identifier: Apache-2.0
"""The formats that take turns: what was named, opened and told apart.

FOLDER, model object, random:SHAPE     in this process; `formats` makes several of one that is not quantized
URL                                    an OpenAI-compatible server
FORMAT=...                             any of them, under that format's name
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pennyweight import linear_bf16
from pennyweight.benchmark import random_model
from pennyweight.errors import MeasurementError
from pennyweight.evaluate.in_process import InProcess
from pennyweight.evaluate.server import Server
from pennyweight.evaluate.targets import open_target
from pennyweight.fuse import fuse_model
from pennyweight.layers import QuantizedLinear
from pennyweight.schemes import names, scheme

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Formats by the dtype of a model that is not quantized.
DENSE = {"bfloat16": "BF16", "float16": "FP16", "float32": "FP32"}
#: Words of a model's config that say how much work it is; formats of one model share them.
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
         "head_dim", "vocab_size", "tie_word_embeddings", "max_position_embeddings")  # fmt: skip
Source = Any  # str, Path, nn.Module, InProcess or Server


@dataclass
class Side:
    """One format of a model.

    Attributes:
        format: "BF16", a scheme's name, or as the user calls it.
        target: Its model, or the server that has it.
        about: As a result's file has it in `targets`.
        notes: What is to be known of its figures.
    """

    format: str
    target: InProcess | Server
    about: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> PreTrainedModel:
        """The torch module; a server has none here."""
        assert isinstance(self.target, InProcess)
        return self.target.model

    @property
    def vocabulary(self) -> tuple[int, list[int]]:
        """How many token ids there are, and the special ones.

        Raises:
            MeasurementError: A server whose tokenizer is not known.
        """
        tokenizer = self.target.tokenizer
        if tokenizer is not None:
            return len(tokenizer), sorted(tokenizer.all_special_ids)
        if isinstance(self.target, Server):
            raise MeasurementError(
                f"{self.target.url}: its model's tokenizer is not here, and prompts have an exact number of tokens; "
                "give the tokenizer's folder (--tokenizer DIR)"
            )
        return self.target.vocabulary, []


def open_sides(
    sources: Sequence[Source], formats: Sequence[str], *, tokenizer: Any, fuse: bool, seed: int
) -> list[Side]:
    """Open everything that is to be measured; the first that is not quantized is the baseline.

    Args:
        sources: Folders, "random:SHAPE", URLs, models; a text may start with "FORMAT=".
        formats: Of each model that is not quantized: "bf16" and schemes. Empty: each as it is.
        tokenizer: Of servers and models that carry none, or its folder.
        fuse: Put fused ops into quantized models on a CPU.
        seed: Of random weights.
    Raises:
        MeasurementError: Two of one format, formats of different models, formats of what is quantized or a server.
        CheckpointError, EvaluationError: A folder or server that is none.
    """
    wanted = _formats(formats)
    sides = [side for source in sources for side in _open(source, wanted, tokenizer, fuse, seed)]
    seen: dict[str, Side] = {}
    for side in sides:
        if side.format in seen:
            raise MeasurementError(
                f"{seen[side.format].about['name']} and {side.about['name']} are both {side.format}; name one of them "
                f"otherwise: {side.format}-2={side.about['source'] or '...'}"
            )
        seen[side.format] = side
    _check_one_model(sides)
    baseline = next((side for side in sides if side.format in DENSE.values()), None)
    for side in sides:
        side.about = {"format": side.format, **side.about, "baseline": side is baseline}
    return sides


def _formats(formats: Sequence[str]) -> list[str]:
    found = []
    for name in formats:
        found.append("BF16" if name.strip().upper() == "BF16" else scheme(name.strip()).name)
    return list(dict.fromkeys(found))


def _open(source: Source, wanted: list[str], tokenizer: Any, fuse: bool, seed: int) -> Iterator[Side]:
    label, source = _label(source)
    kind = None
    if isinstance(source, str) and source.startswith(random_model.PREFIX):
        name, kind = source.removeprefix(random_model.PREFIX), "random"
        source = InProcess(random_model.build(name, seed), None, Path(name).name)
    target = open_target(source, tokenizer=tokenizer)
    if not isinstance(target, (InProcess, Server)):
        raise MeasurementError(
            f"{target.name}: is neither a model of transformers nor a server; it cannot be timed"
        )
    if isinstance(target, Server):
        if wanted:
            raise MeasurementError(f"{target.url}: a server has one format; leave --formats out")
        yield Side(label or _served_format(target), target, target.describe())
        return
    about = {**_described(target, kind), "parameters": _parameters(target.model)}
    dense = DENSE.get(about["scheme"])
    if wanted and dense is None:
        raise MeasurementError(
            f"{target.name}: is {about['scheme']} already; --formats are made of a model in BF16"
        )
    if not wanted:
        side = Side(label or dense or about["scheme"], target, about)
        _fuse(side, fuse)
        yield side
        return
    for form in wanted:
        if form == "BF16":
            if dense != "BF16":
                raise MeasurementError(
                    f"{target.name}: is {about['scheme']}, not bfloat16; leave bf16 out of --formats"
                )
            yield Side(form, target, about)
        else:
            yield _made(target, about, form, fuse)


def _made(target: InProcess, about: dict[str, Any], form: str, fuse: bool) -> Side:
    """Round a copy of a model to a format: how well it answers does not change how fast it is."""
    from pennyweight.quantize import model_bytes, quantize
    from pennyweight.recipes import Recipe

    model = copy.deepcopy(target.model)
    quantize(model, Recipe(form, algorithm="rtn", observer="minmax"), progress=False)
    made = InProcess(model, target.tokenizer, f"{target.name}-{form}")
    described = {
        **about,
        "name": made.name,
        "kind": "made",
        "scheme": form,
        "bytes": model_bytes(model),
        "hash": None,
    }
    side = Side(
        form, made, described, [f"{form}: rounded to nearest from {target.name}, for its speed alone"]
    )
    _fuse(side, fuse)
    return side


def _fuse(side: Side, fuse: bool) -> None:
    quantized = any(isinstance(module, QuantizedLinear) for module in side.model.modules())
    if side.about["kind"] == "object" or not (fuse and quantized and side.model.device.type == "cpu"):
        return  # the user's own model stays as it is
    left = fuse_model(side.model)
    side.notes += [f"{side.format}: left unfused: {name}: {reason}" for name, reason in left.items()]
    linear_bf16.place(side.model)


def _label(source: Source) -> tuple[str | None, Source]:
    """Split "FORMAT=target"; a path that is there, or a URL, is taken whole."""
    if not isinstance(source, str) or "=" not in source or Path(source).exists():
        return None, source
    label, _, rest = source.partition("=")
    if not label or not rest or "/" in label:
        return None, source
    return next((name for name in (*DENSE.values(), *names()) if name == label.upper()), label), rest


def _described(target: InProcess, kind: str | None) -> dict[str, Any]:
    if kind is None:
        return target.describe()
    from pennyweight.quantize import model_bytes

    model = target.model
    dtype = str(model.dtype).removeprefix("torch.")
    return {
        "name": target.name, "kind": kind, "source": f"{random_model.PREFIX}{target.name}", "scheme": dtype,
        "dtype": dtype, "device": str(model.device), "bytes": model_bytes(model), "hash": None,
    }  # fmt: skip


def _served_format(server: Server) -> str:
    """Return the format of a server's model where the server names a folder that is here."""
    from pennyweight.checkpoint.folder import read_folder
    from pennyweight.checkpoint.quantization_config import parse, quantization_of

    folder = Path(server.model_name)
    if not (folder / "config.json").is_file():
        raise MeasurementError(
            f"{server.url}: does not say which format its model {server.model_name} has; put the format before it: "
            f"W4A16-INT={server.url}"
        )
    config = read_folder(folder).config
    if quantization_of(config) is None:
        return DENSE.get(str(config.get("dtype") or config.get("torch_dtype") or "float32"), "FP32")
    return parse(config, folder / "config.json").scheme.name


def _parameters(model: nn.Module) -> int | None:
    """How many weights a model that is not quantized has."""
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        return None
    return sum({p.data_ptr(): p.numel() for p in model.parameters()}.values())


def _check_one_model(sides: Sequence[Side]) -> None:
    local = [side for side in sides if isinstance(side.target, InProcess)]
    for side in local[1:]:
        one, other = (shape_of(s.model.config) for s in (local[0], side))
        apart = [key for key in SHAPE if one.get(key) != other.get(key)]
        if apart:
            key = apart[0]
            raise MeasurementError(
                f"{local[0].about['name']} and {side.about['name']} are no formats of one model: {key} is "
                f"{one.get(key)} and {other.get(key)}; measure each model in a run of its own"
            )


def shape_of(config: Any) -> dict[str, Any]:
    """Return a config's words that say how much work a model is."""
    text = config.get_text_config()
    return {key: getattr(text, key) for key in SHAPE if hasattr(text, key)}
