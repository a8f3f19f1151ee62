# SPDX-License-Identifier: Apache-2.0
"""explain() and implementations() say what really runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from layer_cases import make
from ops_reference import forced, runnable
from torch import nn

import pennyweight as pw
from pennyweight import _C


def model() -> nn.Module:
    layers = [make(name).layer() for name in ("int8", "int8", "fp8", "int4-g128", "int4-g32-zero-points")]
    return nn.Sequential(*layers, nn.Linear(3, 3, dtype=torch.bfloat16))


@pytest.mark.parametrize("rows", [1, 2048])
def test_explain_names_what_runs(rows: int) -> None:
    net = model()
    for group in pw.explain(net).groups:
        for name in group.layers:
            net.get_submodule(name)(torch.randn(rows, 128).bfloat16())
            assert _C.last_run(group.op) == (group.decode if rows == 1 else group.prefill)


def test_explain_groups_layers_that_run_alike() -> None:
    found = pw.explain(model())
    assert [g.layers for g in found.groups] == [["0", "1"], ["2"], ["3"], ["4"]]
    assert found.plain == ["5"]
    assert "W4A16-INT, group 32, zero points" in str(found)
    assert "left as nn.Linear: 5" in str(found)
    assert "<table>" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["groups"][0]["op"] == "linear_w8a8_int8"


def test_explain_says_why_not_a_faster_one() -> None:
    with forced("reference"):
        found = pw.explain(make("int8").layer())
    faster = runnable("linear_w8a8_int8")[:-1]
    assert found.groups[0].decode == "reference"
    assert found.groups[0].why_not == {name: "reference is forced" for name in faster}
    assert found.forced == "reference"


def test_explain_of_a_model_without_quantized_layers() -> None:
    found = pw.explain(nn.Sequential(nn.Linear(2, 2)))
    assert found.groups == []
    assert "nn.Linear: 0" in str(found)


def test_implementations_lists_every_op_best_first() -> None:
    found = pw.implementations()
    assert set(found) == set(_C.ops())
    for op, entry in _C.ops().items():
        assert [i.name for i in found[op]] == entry["implementations"]
        assert found[op][-1] == type(found[op][-1])("reference", None)


RUN = """
import torch, pennyweight as pw
from pennyweight import _C
try:
    weight = pw.ops.pack_int8(torch.ones(4, 8, dtype=torch.int8))
    pw.ops.linear_w8a8_int8(torch.ones(2, 8), weight, torch.ones(4))
    print(_C.last_run("linear_w8a8_int8"))
except pw.UnsupportedError as error:
    print("refused:", error)
"""


def run(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_environment_forces_an_implementation() -> None:
    assert run(PENNYWEIGHT_FORCE="reference") == "reference"
    assert "refused: PENNYWEIGHT_FORCE: no implementation is called 'fast'" in run(PENNYWEIGHT_FORCE="fast")


def test_strict_refuses_anything_but_the_best() -> None:
    best = _C.ops()["linear_w8a8_int8"]["implementations"][0]
    out = run(PENNYWEIGHT_STRICT="1")
    assert out == best if best in runnable("linear_w8a8_int8") else "PENNYWEIGHT_STRICT refuses" in out


@pytest.mark.skipif(not _C.cuda()["built"], reason="built without CUDA")
@pytest.mark.parametrize("compute", [75, 80, 90])
def test_implementations_for_a_card_say_why_not(compute: int) -> None:
    found = pw.implementations(compute)
    assert set(found) == {op for op, entry in _C.ops().items() if entry["cuda"]}
    first = found["quantize_per_token_int8"][0]
    assert first.name == "sm80" and (first.why_not is None) == (compute >= 80)
