# SPDX-License-Identifier: Apache-2.0
"""The quantization_config: what is read, what is refused and by which name, and what is written."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from folders import FIXTURES, SCHEMES

from pennyweight.checkpoint.quantization_config import build, parse
from pennyweight.errors import CheckpointError, UnsupportedError


def config_of(scheme: str) -> dict[str, Any]:
    return json.loads((FIXTURES / scheme / "config.json").read_text())


def group(config: dict[str, Any]) -> dict[str, Any]:
    return config["quantization_config"]["config_groups"]["group_0"]


@pytest.mark.parametrize("name", SCHEMES)
def test_config_that_we_build_is_llm_compressor_s(name: str) -> None:
    config = config_of(name)
    parsed = parse(config, "config.json")
    actorder = group(config)["weights"]["actorder"]
    assert build(parsed.scheme, ["lm_head"], actorder=actorder) == config["quantization_config"]
    assert (parsed.targets, parsed.ignore) == (("Linear",), ("lm_head",))


def weights(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: group(config)["weights"].update(changes)


def inputs(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: group(config)["input_activations"].update(changes)


def top(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["quantization_config"].update(changes)


READ: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "per-channel": ("W4A16", weights(strategy="channel", group_size=None)),
    "channel-as-minus-one": ("W4A16", weights(strategy="channel", group_size=-1)),
    "strategy-left-out": ("W4A16", lambda c: group(c)["weights"].pop("strategy")),
    "actorder-weight": ("W4A16", weights(actorder="weight")),
    "actorder-false": ("W8A8", weights(actorder=False)),
    "frozen-as-in-2024": ("W8A8", top(quantization_status="frozen")),
    "dense-sparsity": ("W8A8", top(sparsity_config={"format": "dense"})),
    "compression_config": ("W8A8", lambda c: c.update(compression_config=c.pop("quantization_config"))),
}


@pytest.mark.parametrize(("scheme", "change"), READ.values(), ids=READ)
def test_config_reads_variants(scheme: str, change: Callable[[dict[str, Any]], object]) -> None:
    config = config_of(scheme)
    change(config)
    assert parse(config, "config.json").scheme.name.startswith(scheme)


def second_group(config: dict[str, Any]) -> None:
    other = copy.deepcopy(group(config))
    other["weights"].update(group_size=64)
    config["quantization_config"]["config_groups"]["group_1"] = other


STATIC = {"dynamic": False, "strategy": "tensor"}
REFUSED: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "gptq": ("W4A16", top(quant_method="gptq"), "is a 'gptq' checkpoint"),
    "awq": ("W4A16", top(quant_method="awq"), "is a 'awq' checkpoint"),
    "bitsandbytes": ("W4A16", top(quant_method="bitsandbytes"), "is a 'bitsandbytes' checkpoint"),
    "fp8": ("W4A16", top(quant_method="fp8"), "is a 'fp8' checkpoint"),
    "no-method": ("W4A16", lambda c: c["quantization_config"].pop("quant_method"), "is a None checkpoint"),
    "kv-cache": ("W8A8", top(kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme"),
    "sparse": ("W8A8", top(sparsity_config={"format": "sparse-24-bitmask"}), "'sparse-24-bitmask'"),
    "transform": ("W8A8", top(transform_config={"config_groups": {"u": {}}}), "transform_config"),
    "mixed": ("W4A16", top(format="mixed-precision"), "'mixed-precision'"),
    "marlin": ("W4A16", top(format="marlin-24"), "'marlin-24'"),
    "nvfp4-format": ("W4A16", top(format="nvfp4-pack-quantized"), "'nvfp4-pack-quantized'"),
    "two-groups": ("W4A16", second_group, "mixes several schemes"),
    "outputs": ("W8A8", lambda c: group(c).update(output_activations={}), "output activations"),
    "fp8-block": (
        "FP8_DYNAMIC",
        lambda c: (weights(strategy="block", block_structure=[128, 128])(c), inputs(strategy="group")(c)),
        "is FP8_BLOCK ",
    ),
    "fp8-static": (
        "FP8_DYNAMIC",
        inputs(**STATIC),
        r"is FP8 \(.*static float8 activations, scale per tensor",
    ),
    "fp8-tensor": ("FP8_DYNAMIC", weights(strategy="tensor"), "is FP8 .*scale per tensor"),
    "fp8-weight-only": ("FP8_DYNAMIC", lambda c: group(c).update(input_activations=None), "is W8A16 "),
    "int8-static": ("W8A8", inputs(**STATIC), r"is W8A8 \(.*static int8 activations"),
    "int8-asym": ("W8A8", weights(symmetric=False), "is W8A8_ASYM "),
    "int8-asym-inputs": ("W8A8", inputs(symmetric=False), "is W8A8 "),
    "w8a16": ("W4A16", weights(num_bits=8), "is W8A16 "),
    "w3a16": ("W4A16", weights(num_bits=3), "is W3A16 "),
    "w4-tensor": ("W4A16", weights(strategy="tensor", group_size=None), "is W4A16 .*scale per tensor"),
    "w4a8": ("W8A8", weights(num_bits=4, strategy="group", group_size=128), "is W4A8 "),
    "w4afp8": (
        "W8A8",
        lambda c: (weights(num_bits=4)(c), inputs(type="float")(c)),
        "is W4AFP8 ",
    ),
    "nvfp4": ("W4A16", weights(type="float", strategy="tensor_group", group_size=16), "is NVFP4A16 "),
    "mxfp4": ("W4A16", weights(type="float", group_size=32), "is MXFP4A16 "),
    "actorder-group": ("W4A16", weights(actorder="group"), "actorder 'group'"),
    "actorder-dynamic": ("W4A16", weights(actorder="dynamic"), "actorder 'dynamic'"),
    "format-of-other": (
        "W8A8",
        lambda c: group(c).update(format="pack-quantized"),
        "in format 'pack-quantized'",
    ),
}


@pytest.mark.parametrize(("scheme", "change", "text"), REFUSED.values(), ids=REFUSED)
def test_config_refuses_by_name(scheme: str, change: Callable[[dict[str, Any]], object], text: str) -> None:
    config = config_of(scheme)
    change(config)
    with pytest.raises(UnsupportedError, match=text) as caught:
        parse(config, "there/config.json")
    assert "there/config.json" in str(caught.value)


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "none": (lambda c: c.pop("quantization_config"), "not quantized; load it with transformers"),
    "text": (lambda c: c.update(quantization_config="W4A16"), "must be an object; got str"),
    "no-groups": (top(config_groups={}), "config_groups must name"),
    "group-list": (
        lambda c: c["quantization_config"]["config_groups"].update(group_0=[]),
        "must be an object",
    ),
    "weights-list": (lambda c: group(c).update(weights=[]), "weights must be an object"),
    "unknown-key": (weights(rotation="hadamard"), "unknown key 'rotation'"),
    "bits-text": (weights(num_bits="4"), "num_bits must be a whole number"),
    "bits-huge": (weights(num_bits=10**20), "num_bits must be a whole number"),
    "group-huge": (weights(group_size=10**20), "group_size must be a whole number"),
    "group-negative": (weights(group_size=-2), "group_size must be a whole number"),
    "bad-regex": (top(ignore=["re:("]), "is no regular expression"),
    "ignore-text": (top(ignore="lm_head"), "ignore must be a list"),
    "targets-numbers": (lambda c: group(c).update(targets=[1]), "targets must be a list"),
    "not-compressed": (top(quantization_status="calibration"), "quantization_status is 'calibration'"),
}


@pytest.mark.parametrize(("change", "text"), MALFORMED.values(), ids=MALFORMED)
def test_config_refuses_malformed(change: Callable[[dict[str, Any]], object], text: str) -> None:
    config = config_of("W4A16")
    change(config)
    with pytest.raises(CheckpointError, match=text):
        parse(config, "config.json")
