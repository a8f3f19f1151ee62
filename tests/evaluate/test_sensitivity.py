# SPDX-License-Identifier: Apache-2.0
"""`pw.sensitivity` against models quantized part by part by `ignore`, and the model it leaves behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import tiny_ids

import pennyweight as pw
from pennyweight.errors import EvaluationError, UnsupportedError

RTN = pw.Recipe("W4A16-INT", algorithm="rtn", observer="minmax")


def kl(model: Any, rows: torch.Tensor, ignore: str | None) -> tuple[float, float]:
    """KL and perplexity of a copy quantized but for what `ignore` matches."""
    made = copy.deepcopy(model)
    recipe = pw.Recipe(
        "W4A16-INT", algorithm="rtn", observer="minmax", ignore=[ignore] if ignore else ["lm_head"]
    )
    pw.quantize(made, recipe, progress=False)
    found = pw.evaluate(made, baseline=model, data=rows, progress=False)["model"]["quick"]["metrics"]
    return found["kl"], found["perplexity"]


#: What is left dense for each part alone, and for everything but it.
IGNORED = {
    "q/k/v": (r"re:.*\.(o|gate|up|down)_proj", r"re:.*\.[qkv]_proj"),
    "o": (r"re:.*\.(q|k|v|gate|up|down)_proj", r"re:.*\.o_proj"),
    "gate/up": (r"re:.*\.(q|k|v|o|down)_proj", r"re:.*\.(gate|up)_proj"),
    "down": (r"re:.*\.(q|k|v|o|gate|up)_proj", r"re:.*\.down_proj"),
}


def test_sensitivity_is_that_of_models_quantized_in_part(model: Any) -> None:
    rows = tiny_ids(4, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = list(model.modules())
    found = pw.sensitivity(model, rows, RTN, by="kind", progress=False)
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [part.name for part in found.parts] == list(IGNORED)
    assert [part.layers for part in found.parts] == [6, 2, 4, 2]
    for part in found.parts:
        others, own = IGNORED[part.name]
        assert (part.kl, part.perplexity) == pytest.approx(kl(model, rows, others), rel=1e-6)
        assert (part.kl_without, part.perplexity_without) == pytest.approx(kl(model, rows, own), rel=1e-6)
    assert (found.kl_all, found.perplexity_all) == pytest.approx(kl(model, rows, None), rel=1e-6)
    assert found.tokens == 4 * 31


@pytest.mark.parametrize(("by", "parts"), [("layer", 14), ("block", 2)])
def test_sensitivity_shows_each_part(model: Any, by: str, parts: int) -> None:
    found = pw.sensitivity(model, tiny_ids(2, 16), RTN, by=by, tokens=16, progress=False)
    assert (len(found.parts), found.tokens) == (parts, 15)
    lines = str(found).split("\n")
    assert len(lines) == parts + 2 and max(line.count("#") for line in lines) == 24
    page = found._repr_html_()
    assert page.count("<tr>") == parts + 1 and "12.0em" in page
    assert set(found.to_dict()) == {
        "version",
        "recipe",
        "by",
        "tokens",
        "perplexity",
        "kl_all",
        "perplexity_all",
        "parts",
    }
    assert found.worst()[0].kl == max(part.kl for part in found.parts)


def test_sensitivity_draws_a_bar_for_each_part(model: Any) -> None:
    pytest.importorskip("matplotlib")
    found = pw.sensitivity(model, tiny_ids(2, 16), RTN, by="block", progress=False)
    axes = found.plot()
    assert [bar.get_width() for bar in axes.patches] == [part.kl for part in found.parts]


def test_sensitivity_calibrates_by_gptq(model: Any) -> None:
    found = pw.sensitivity(model, tiny_ids(8, 32), by="block", progress=False)
    assert found.recipe["algorithm"] == "gptq"
    assert all(part.kl > 0 for part in found.parts)


def test_sensitivity_puts_back_after_a_failure(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pennyweight.evaluate import in_process

    modules, calls = list(model.modules()), []

    def fail(self: Any, ids: torch.Tensor) -> torch.Tensor:
        calls.append(ids)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return real(self, ids)

    real = in_process.InProcess.logits
    monkeypatch.setattr(in_process.InProcess, "logits", fail)
    with pytest.raises(KeyboardInterrupt):
        pw.sensitivity(model, tiny_ids(2, 16), RTN, by="block", progress=False)
    assert [id(m) for m in model.modules()] == [id(m) for m in modules]


def test_sensitivity_refuses(model: Any) -> None:
    with pytest.raises(EvaluationError, match="by must be one of layer, kind, block; got 'row'"):
        pw.sensitivity(model, tiny_ids(2, 16), RTN, by="row", progress=False)
    with pytest.raises(UnsupportedError, match="SmoothQuant changes the norms"):
        pw.sensitivity(model, tiny_ids(2, 16), pw.Recipe("W8A8-INT", smoothquant=0.8), progress=False)
    with pytest.raises(EvaluationError, match="at least 2 tokens"):
        pw.sensitivity(model, tiny_ids(2, 1), RTN, progress=False)
