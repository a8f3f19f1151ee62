# SPDX-License-Identifier: Apache-2.0
"""The ``quantization_config`` of a compressed-tensors checkpoint: read it strictly, write it completely.

Read: FP8_DYNAMIC, W8A8 and W4A16 (symmetric or not, per group or per channel), as llm-compressor has written
them since its first release. Everything else is refused by its name: to guess would be to compute nonsense.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pennyweight.errors import CheckpointError, UnsupportedError
from pennyweight.schemes import Scheme

VERSION = "0.19.0"  # of compressed-tensors, whose key set this is
READABLE = "pennyweight reads FP8_DYNAMIC, W8A8 and W4A16 (symmetric or asymmetric)"
FORMATS = {"fp8": "float-quantized", "int8": "int-quantized", "int4": "pack-quantized"}
GROUP_SIZES = (32, 64, 128)
ARGS_KEYS = {
    "actorder", "block_structure", "dynamic", "group_size", "num_bits", "observer", "observer_kwargs",
    "scale_dtype", "strategy", "symmetric", "type", "zp_dtype",
}  # fmt: skip


@dataclass(frozen=True)
class QuantizationConfig:
    """What a checkpoint says: modules that match ``targets``, not ``ignore``, are stored in ``scheme``."""

    scheme: Scheme
    targets: tuple[str, ...]
    ignore: tuple[str, ...]


def parse(config: dict[str, Any], where: Path | str) -> QuantizationConfig:
    """Read the quantization part of a config.json.

    Args:
        config: The whole config.json.
        where: Its path, for the text of errors.
    Raises:
        CheckpointError: there is none, or it is malformed.
        UnsupportedError: it is a format that we do not read; the text has its name.
    """
    raw = quantization_of(config)
    if raw is None:
        raise CheckpointError(
            f"{where}: has no quantization_config, the model is not quantized; load it with transformers "
            "(AutoModelForCausalLM.from_pretrained), or quantize it with pennyweight.quantize"
        )
    if not isinstance(raw, dict):
        raise CheckpointError(f"{where}: quantization_config must be an object; got {type(raw).__name__}")
    _refuse_other_features(raw, where)
    groups = raw.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise CheckpointError(f"{where}: quantization_config.config_groups must name at least one group")
    parsed = [_parse_group(name, group, raw, where) for name, group in groups.items()]
    if any(scheme != parsed[0][0] for scheme, _ in parsed):
        raise UnsupportedError(
            f"{where}: mixes several schemes (mixed-precision); {READABLE}, one per checkpoint"
        )
    targets = tuple(target for _, each in parsed for target in each)
    return QuantizationConfig(parsed[0][0], targets, _patterns(raw.get("ignore") or [], "ignore", where))


def quantization_of(config: dict[str, Any]) -> Any:
    """The raw quantization part, once called ``compression_config``; None without one."""
    raw = config.get("quantization_config")
    if raw is None and isinstance(config.get("compression_config"), dict):
        raw = {"quant_method": "compressed-tensors", **config["compression_config"]}
    return raw


def _refuse_other_features(raw: dict[str, Any], where: Path | str) -> None:
    method = raw.get("quant_method")
    if method != "compressed-tensors":
        raise UnsupportedError(f"{where}: is a {method!r} checkpoint; {READABLE} of compressed-tensors")
    if raw.get("kv_cache_scheme") is not None:
        raise UnsupportedError(f"{where}: has a quantized KV cache (kv_cache_scheme); {READABLE}")
    sparsity = raw.get("sparsity_config") or {}
    if sparsity and sparsity != {"format": "dense"}:
        name = sparsity.get("format", "unnamed") if isinstance(sparsity, dict) else sparsity
        raise UnsupportedError(f"{where}: has sparse weights (sparsity_config {name!r}); {READABLE}")
    if raw.get("transform_config"):
        raise UnsupportedError(f"{where}: has rotated weights (transform_config); {READABLE}")
    if raw.get("format") not in (None, *FORMATS.values()):
        raise UnsupportedError(f"{where}: format {raw['format']!r}; {READABLE}")
    if raw.get("quantization_status") not in ("compressed", "frozen"):  # "frozen": files of 2024
        raise CheckpointError(
            f"{where}: quantization_status is {raw.get('quantization_status')!r}, only "
            "'compressed' weights are quantized; save the model compressed"
        )


def _parse_group(
    name: str, group: Any, raw: dict[str, Any], where: Path | str
) -> tuple[Scheme, tuple[str, ...]]:
    where = f"{where}: {name}"
    if not isinstance(group, dict):
        raise CheckpointError(f"{where}: must be an object; got {type(group).__name__}")
    if group.get("output_activations") is not None:
        raise UnsupportedError(f"{where}: quantizes output activations; {READABLE}")
    scheme = parse_scheme(group.get("weights"), group.get("input_activations"), where)
    for stated in (group.get("format"), raw.get("format")):
        if stated is not None and stated != FORMATS[scheme.weight]:
            raise UnsupportedError(
                f"{where}: stores {scheme.name} in format {stated!r}, not {FORMATS[scheme.weight]!r}"
            )
    targets = _patterns(group.get("targets") or [], "targets", where)
    return scheme, targets


def _patterns(entries: Any, key: str, where: Path | str) -> tuple[str, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise CheckpointError(f"{where}: {key} must be a list of names; got {entries!r:.80}")
    for entry in entries:
        if entry.startswith("re:"):
            try:
                re.compile(entry[3:])
            except re.error as error:
                raise CheckpointError(
                    f"{where}: {key} {entry!r} is no regular expression: {error}"
                ) from error
    return tuple(entries)


def parse_scheme(weights: Any, inputs: Any, where: Path | str) -> Scheme:
    """The scheme of one group from its ``weights`` and ``input_activations`` arguments."""
    weights, inputs = _arguments(weights, "weights", where), _arguments(inputs, "input_activations", where)
    if weights is None:
        raise UnsupportedError(f"{where}: quantizes activations but no weights; {READABLE}")
    name = _format_name(weights, inputs)
    scheme = _scheme(weights, inputs)
    if scheme is None or weights.get("dynamic") or weights.get("scale_dtype") is not None:
        raise UnsupportedError(f"{where}: is {name}; {READABLE}")
    if weights.get("actorder") not in (None, False, "static", "weight"):
        raise UnsupportedError(
            f"{where}: is {name} with actorder {weights['actorder']!r}, which reorders columns at run time; "
            f"{READABLE} with actorder 'static' or none"
        )
    return scheme


def _arguments(raw: Any, key: str, where: Path | str) -> dict[str, Any] | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{where}: {key} must be an object; got {type(raw).__name__}")
    unknown = sorted(set(raw) - ARGS_KEYS)
    if unknown:
        raise CheckpointError(
            f"{where}: {key} has the unknown key {unknown[0]!r}, which may change what is stored"
        )
    for name, low, high in (("num_bits", 1, 64), ("group_size", -1, 1 << 22)):
        value = raw.get(name)
        if value is not None and (
            not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high
        ):
            raise CheckpointError(
                f"{where}: {key}.{name} must be a whole number in {low}..{high}; got {value!r}"
            )
    result = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False, "group_size": None, **raw}
    result["strategy"] = raw.get("strategy") or _default_strategy(result["group_size"])
    return result


def _default_strategy(group_size: int | None) -> str:
    return "tensor" if group_size is None else "channel" if group_size == -1 else "group"


def _scheme(weights: dict[str, Any], inputs: dict[str, Any] | None) -> Scheme | None:
    """Ours, or None for every combination that we do not read."""
    bits, kind, strategy = weights["num_bits"], weights["type"], weights["strategy"]
    per_channel = strategy == "channel" and weights["group_size"] in (None, -1)
    if inputs is None:
        if (bits, kind) != (4, "int") or weights["symmetric"] not in (True, False):
            return None
        group_size = -1 if per_channel else weights["group_size"]
        if not per_channel and (strategy != "group" or group_size not in GROUP_SIZES):
            return None
        return Scheme(
            "W4A16-INT", "int4", 4, group_size=group_size, symmetric=weights["symmetric"], activation=None
        )
    per_token = inputs["strategy"] == "token" and inputs["dynamic"] is True and inputs["symmetric"] is True
    same = inputs["num_bits"] == bits == 8 and inputs["type"] == kind
    if not (per_token and same and per_channel and weights["symmetric"] is True) or kind not in (
        "int",
        "float",
    ):
        return None
    if kind == "float":
        return Scheme("W8A8-FP", "fp8", 8, group_size=-1, symmetric=True, activation="fp8")
    return Scheme("W8A8-INT", "int8", 8, group_size=-1, symmetric=True, activation="int8")


def _format_name(weights: dict[str, Any], inputs: dict[str, Any] | None) -> str:
    """What people call this combination, and in brackets what sets it apart."""
    bits, floating, group = weights["num_bits"], weights["type"] == "float", weights["group_size"]
    if floating and group in (16, 32):
        base = {(4, 16): "NVFP4", (4, 32): "MXFP4", (8, 32): "MXFP8"}.get((bits, group), f"FP{bits}")
        name = base if inputs is not None else f"{base}A16"
    elif floating and inputs is not None:
        name = f"FP{bits}_BLOCK" if weights["strategy"] == "block" else f"FP{bits}"
    else:
        right = (
            "16" if inputs is None else ("FP" if inputs["type"] == "float" else "") + str(inputs["num_bits"])
        )
        name = f"W{bits}A{right}{'_ASYM' if weights['symmetric'] is not True else ''}"
    run = f" of {group}" if weights["strategy"] == "group" else ""
    details = f"{weights['type']}{bits} weights, scale per {weights['strategy']}{run}"
    if inputs is not None:
        when = "dynamic" if inputs["dynamic"] else "static"
        details += (
            f"; {when} {inputs['type']}{inputs['num_bits']} activations, scale per {inputs['strategy']}"
        )
    return f"{name} ({details})"


def build(
    scheme: Scheme, ignore: list[str], *, actorder: str | None = None, observer: str = "memoryless_minmax"
) -> dict[str, Any]:
    """The complete ``quantization_config`` for ``scheme``, with the key set that llm-compressor writes.

    Args:
        scheme: Of every quantized layer.
        ignore: Names of the linear layers that are not quantized.
        actorder: "static" when GPTQ took the columns in order of their activations; for the record only.
        observer: How the scales were found; for the record only, no reader uses it.
    """
    common: dict[str, Any] = {
        "block_structure": None,
        "observer_kwargs": {},
        "scale_dtype": None,
        "zp_dtype": None,
    }
    kind = "float" if scheme.weight == "fp8" else "int"
    grouped = scheme.group_size > 0
    weights = {
        **common,
        "actorder": actorder,
        "dynamic": False,
        "group_size": scheme.group_size if grouped else None,
        "num_bits": scheme.bits,
        "observer": observer,
        "strategy": "group" if grouped else "channel",
        "symmetric": scheme.symmetric,
        "type": kind,
        "zp_dtype": None if scheme.symmetric else "torch.int8",
    }
    inputs = None
    if scheme.activation is not None:
        inputs = {
            **common, "actorder": None, "dynamic": True, "group_size": None, "num_bits": 8, "observer": None,
            "strategy": "token", "symmetric": True, "type": kind,
        }  # fmt: skip
    form = FORMATS[scheme.weight]
    group = {"format": form, "input_activations": inputs, "output_activations": None, "targets": ["Linear"],
             "weights": weights}  # fmt: skip
    return {
        "config_groups": {"group_0": group},
        "format": form,
        "global_compression_ratio": None,
        "ignore": ignore,
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": VERSION,
    }
