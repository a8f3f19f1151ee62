# SPDX-License-Identifier: Apache-2.0
"""Suite `quick` against plain loops in float64, on every kind of data, in pieces of any size."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_ids
from tiny_tokens import tiny_tokenizer

import pennyweight as pw
from pennyweight.errors import EvaluationError
from pennyweight.evaluate import in_process, quick, text


def plain(ours: torch.Tensor, theirs: torch.Tensor, rows: torch.Tensor) -> dict[str, float]:
    """The metrics, token by token in float64, from logits of all positions."""
    nll, kl, right, same, gained, lost = [], [], 0, 0, 0, 0
    for row, a, b in zip(rows, ours.double(), theirs.double(), strict=True):
        for t in range(len(row) - 1):
            q, p = a[t].softmax(-1), b[t].softmax(-1)
            nll.append(-math.log(q[row[t + 1]]))
            kl.append(sum(float(x) * math.log(float(x) / float(y)) for x, y in zip(p, q, strict=True)))
            now, before = int(a[t].argmax()) == int(row[t + 1]), int(b[t].argmax()) == int(row[t + 1])
            right, same = right + now, same + (int(a[t].argmax()) == int(b[t].argmax()))
            gained, lost = gained + (now and not before), lost + (before and not now)
    n = len(nll)
    return {
        "tokens": n, "perplexity": math.exp(sum(nll) / n), "accuracy": right / n, "kl": sum(kl) / n,
        "kl_p999": sorted(kl)[math.ceil(0.999 * n) - 1], "top1": same / n, "flips": (gained + lost) / n,
        "gained": gained, "lost": lost,
    }  # fmt: skip


def test_quick_is_the_plain_loop(model: Any, quantized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = {"max_new_tokens": 38, "min_new_tokens": 38, "do_sample": False, "pad_token_id": 0}
    starts = tiny_ids(
        4, 2
    )  # each model goes on with two of them: some tokens are right by one and not by the other
    rows = torch.cat([model.generate(starts[:2], **greedy), quantized.generate(starts[2:], **greedy)])
    target, baseline = (pw.evaluate.open_target(m) for m in (quantized, model))
    expected = plain(target.logits(rows), baseline.logits(rows), rows)
    assert expected["gained"] and expected["lost"]
    monkeypatch.setattr(quick, "PIECE_BYTES", 7 * 4 * 256)  # seven tokens at once
    monkeypatch.setattr(in_process, "BATCH_BYTES", 2 * 40 * 4 * 256)  # two rows
    found = pw.evaluate(quantized, baseline=model, data=rows, progress=False)["model"]["quick"]["metrics"]
    assert found.pop("bits_per_byte") is None
    # float32 logarithms of a 256-word softmax err by a few ulp of 5, about 3e-6; kl_p999 keeps 5 digits
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_quick_on_itself_shows_no_difference(model: Any) -> None:
    found = pw.evaluate(model, baseline=model, data=tiny_ids(4, 24), progress=False)["model"]["quick"]
    assert (found["metrics"]["kl"], found["metrics"]["kl_p999"], found["metrics"]["top1"]) == (0.0, 0.0, 1.0)
    assert (found["metrics"]["flips"], found["pairs"]["difference"]) == (0.0, 0.0)
    assert found["pairs"]["verdict"] == "no difference shown"


def test_logits_are_summed_in_float32(model: Any) -> None:
    ids = tiny_ids(1, 8)
    logits = pw.evaluate.open_target(model).logits(ids)
    hidden = model.base_model(input_ids=ids).last_hidden_state
    assert torch.equal(logits, torch.nn.functional.linear(hidden.float(), model.lm_head.weight.float()))
    assert not torch.equal(logits, model(input_ids=ids).logits.float())
    assert not any(m._forward_hooks for m in model.modules())


def test_windows_predict_each_token_once() -> None:
    stream = torch.arange(12)
    rows = text.windows(stream, 4)
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 11]]
    assert text.windows(stream[:9], 4)[-1].tolist() == [4, 5, 6, 7, 8]
    assert text.windows(stream[:1], 4) == []


def test_bytes_of_windows_are_those_of_the_text() -> None:
    tokenizer = tiny_tokenizer(["ä", "bb", "c", "€uro"])
    found = text.read_text(["ä bb c €uro bb", "c c ä"], tokenizer, 3)
    assert [row.tolist() for row in found.rows] == [[0, 1, 2, 3], [3, 1, 2, 2], [2, 0]]
    # " bb c €uro" = 12 bytes, " bb" + "c c" = 6 bytes, " ä" = 3 bytes; the first token's "ä" is not predicted
    assert found.sizes == [12, 6, 3]


@pytest.mark.parametrize("kind", ["txt", "py", "jsonl", "folder", "list", "npy", "safetensors", "tensor"])
def test_quick_reads(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import save_file

    words, ids = " ".join(f"w{i}" for i in range(9)), torch.arange(9)[None]
    data: Any = tmp_path / f"data.{kind}"
    if kind in ("txt", "py"):
        data.write_text(words)
    elif kind == "jsonl":
        messages = [{"role": "user", "content": "w3 w4 w5"}, {"role": "assistant", "content": "w6 w7 w8"}]
        data.write_text(json.dumps({"text": "w0 w1 w2"}) + "\n" + json.dumps({"messages": messages}))
    elif kind == "folder":
        data.mkdir()
        (data / "a.txt").write_text("w0 w1 w2 w3")
        (data / "b.md").write_text("w4 w5 w6 w7 w8")
    elif kind == "npy":
        np.save(data, ids.numpy())
    elif kind == "safetensors":
        save_file({"input_ids": ids}, data)
    else:
        data = ["w0 w1 w2 w3 w4", "w5 w6 w7 w8"] if kind == "list" else ids
    found = text.read_text(data, tiny_tokenizer(), 4)
    assert [row.tolist() for row in found.rows] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    assert text.digest(data) == text.digest(data) is not None
    assert [row.tolist() for row in text.read_text(data, tiny_tokenizer(), 2, limit=2).rows] == [
        [0, 1, 2],
        [4, 5, 6],
    ]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (None, "give --data FILE"),
        (Path("/nowhere/x.txt"), "/nowhere/x.txt does not exist"),
        (["w1"], "fewer than 2 tokens"),
        ([1.5], "must be a file, texts, or token ids"),
        (torch.full((2, 4), 300), "has the id 300, the model's vocabulary 256"),
    ],
)
def test_quick_refuses(model: Any, data: Any, wanted: str) -> None:
    with pytest.raises(EvaluationError, match=wanted):
        pw.evaluate(model, tokenizer=tiny_tokenizer(), data=data, progress=False)


def test_quick_names_a_model_that_makes_nan(model: Any, quantized: Any) -> None:
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")
    target = pw.evaluate.open_target(broken, tokenizer=tiny_tokenizer(), name="broken")
    for wanted in (
        lambda: pw.evaluate(target, baseline=model, data=tiny_ids(2, 8), progress=False),
        lambda: target.log_likelihoods([[1, 2, 3]]),
        lambda: target.generate(["w1 w2"], max_new_tokens=2),
        lambda: target.generate(["w1 w2"], max_new_tokens=2, temperature=1.0),
    ):
        with pytest.raises(EvaluationError, match="broken: its logits hold NaN or Inf"):
            wanted()


def test_generate_is_transformers_greedy_and_seeded(model: Any) -> None:
    target = pw.evaluate.open_target(model, tokenizer=tiny_tokenizer())
    prompts = ["w1 w2 w3", "w9 w8 w7"]
    ids = torch.tensor([[1, 2, 3], [9, 8, 7]])
    made = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=[2], pad_token_id=2)[:, 3:]
    for answer, row in zip(target.generate(prompts, max_new_tokens=6), made.tolist(), strict=True):
        row = row[: row.index(2) + 1] if 2 in row else row
        assert answer[0].tokens == len(row)
        assert answer[0].text.split() == [f"w{i}" for i in row]
        assert answer[0].finish == ("stop" if 2 in row else "length")
    one, same, other = (
        target.generate(prompts, max_new_tokens=5, temperature=1.0, n=3, seed=s) for s in (1, 1, 2)
    )
    assert one == same != other
    assert [len(answers) for answers in one] == [3, 3]


def test_generate_ends_at_a_stop_string(model: Any) -> None:
    target = pw.evaluate.open_target(model, tokenizer=tiny_tokenizer())
    (whole,) = target.generate(["w1 w2 w3"], max_new_tokens=8)[0]
    words = whole.text.split()
    stop = words[2]
    (short,) = target.generate(["w1 w2 w3"], max_new_tokens=8, stop=[stop])[0]
    assert short.finish == "stop" and short.text.split() == words[: words.index(stop)]
    assert short.tokens == words.index(stop) + 1
