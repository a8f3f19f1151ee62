# SPDX-License-Identifier: Apache-2.0
"""The suite `similarity`: ROUGE, BERTScore and STS against their definitions, and where answers part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from generation_cases import DEMO, Scripted, job, make_encoder, write_rows

import pennyweight as pw
from pennyweight.errors import EvaluationError
from pennyweight.evaluate import similarity
from pennyweight.evaluate.results import Store

pytest.importorskip("rouge_score")
pytest.importorskip("bert_score")
pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PAIRS = [
    ("the cat sat on the mat", "the cat sat on the mat"),
    ("the cat ran", "the dog sat on a mat"),
    ("a mat", "a dog on the mat, the mat"),
    ("the " * 90, "a cat"),  # longer than the encoder's 38 tokens
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"prompt": "Tell of a cat."},
        {"messages": [{"role": "user", "content": "And a dog?"}]},
    ]
    return write_rows(tmp_path / "prompts.jsonl", rows)


def test_rouge_by_hand() -> None:
    found = similarity.rouge([*PAIRS, ("", ""), ("", "a")])
    # 1 of 3 and 6 words in common: F1 = 2 · (1/3 · 1/6) / (1/3 + 1/6); 2 of 2 and 7 (comma dropped)
    assert found["rouge1"] == pytest.approx([1.0, 2 / 9, 4 / 9, 0.0, 1.0, 0.0])
    assert found["rougeL"] == pytest.approx([1.0, 2 / 9, 4 / 9, 0.0, 1.0, 0.0])
    swapped = similarity.rouge([("b a", "a b")])
    assert (swapped["rouge1"], swapped["rougeL"]) == ([1.0], [0.5])


def embed(encoder: Path, text: str) -> torch.Tensor:
    """Last layer's embeddings (tokens, 16) of a text, begin and end tokens included."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder).eval()
    ids = tokenizer.encode(text.strip())
    ids = [*ids[:37], ids[-1]] if len(ids) > 38 else ids
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].double()  # type: ignore[no-any-return]


def test_bertscore_by_its_definition(encoder: Path) -> None:
    assert similarity.encoder_layer(encoder) == 3
    expected = []
    for ours, theirs in PAIRS:
        x, y = (torch.nn.functional.normalize(embed(encoder, text), dim=-1) for text in (ours, theirs))
        alike = x @ y.T  # (tokens of the answer, tokens of the baseline's)
        # The begin and end tokens have no weight, but may be matched.
        precision, recall = alike.max(1).values[1:-1].mean(), alike.max(0).values[1:-1].mean()
        expected.append(float(2 * precision * recall / (precision + recall)))
    assert similarity.bertscore(PAIRS, encoder) == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 3) for value in expected}) == len(PAIRS)
    assert similarity.bertscore([("", "a"), (" ", "")], encoder) == [0.0, 1.0]


def test_sts_by_its_definition(encoder: Path) -> None:
    expected = []
    for ours, theirs in PAIRS:
        x, y = (embed(encoder, text).mean(0) for text in (ours, theirs))
        expected.append(float(torch.nn.functional.cosine_similarity(x, y, dim=0)))
    assert similarity.sts(PAIRS, encoder) == pytest.approx(expected, abs=1e-5)


def test_roberta_large_is_known_by_its_shape(tmp_path: Path) -> None:
    config = {
        "model_type": "roberta",
        "num_hidden_layers": 24,
        "hidden_size": 1024,
        "num_attention_heads": 16,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert similarity.encoder_layer(tmp_path) == 17


def test_similarity_end_to_end(prompts: Path, encoder: Path) -> None:
    base = Scripted(lambda text, i: "the cat sat on the mat" if "cat" in text else "a dog", "base")
    model = Scripted(lambda text, i: "the cat ran", "model")
    options = {"prompts": prompts, "bertscore_model": encoder, "sts_model": encoder}
    store = Store()
    found = similarity.run(job(model, base, store, **options))
    assert found.metrics["rouge1"] == pytest.approx((4 / 9 + 0) / 2)
    first = found.items[0]
    assert (first["baseline_text"], first["model_text"]) == ("the cat sat on the mat", "the cat ran")
    assert first["first_divergence"] == {
        "character": 8,
        "token": None,
        "model": "ran",
        "baseline": "sat on the mat",
    }
    assert found.metrics["bertscore"] == pytest.approx(sum(item["bertscore"] for item in found.items) / 2)
    assert found.metrics["identical"] == 0.0
    assert model.asked[0]["n"] == 1 and "temperature" not in model.asked[0]
    asked = len(model.asked), len(base.asked)
    assert similarity.run(job(model, base, store, **options)).items == found.items
    similarity.run(job(Scripted(model.answer), base, Store(), **options))
    assert (len(model.asked), len(base.asked)) == asked  # kept; and the baseline answers once per run


def test_similarity_names_what_was_not_measured(prompts: Path) -> None:
    same = Scripted(lambda text, i: "x y")
    found = similarity.run(job(same, same, prompts=prompts))
    assert (found.metrics["rouge1"], found.metrics["bertscore"], found.metrics["sts"]) == (1.0, None, None)
    assert any(note.startswith("bertscore was not measured") for note in found.notes)
    assert found.items[0]["first_divergence"] is None and "sts" not in found.items[0]


def test_similarity_runs_on_the_demo_model(prompts: Path, encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(DEMO)
    pw.quantize(model, pw.Recipe("W4A16-INT", algorithm="rtn"))
    found = pw.evaluate(
        model, tokenizer=DEMO, baseline=DEMO, suites="similarity", prompts=prompts, max_new_tokens=24,
        bertscore_model=encoder, sts_model=encoder, progress=False, out=tmp_path / "runs",
    )  # fmt: skip
    suite = found.models[0]["suites"]["similarity"]
    assert 0 < suite["metrics"]["rouge1"] <= 1 and 0 < suite["metrics"]["sts"] <= 1.0001
    assert found.baseline is not None
    own = found.baseline["suites"]["similarity"]["items"]
    assert [item["model_text"] for item in own] == [item["baseline_text"] for item in suite["items"]]
    assert "bertscore" in str(found)


def test_first_divergent_token() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    found = similarity.first_divergence("One day a cat ran home.", "One day a dog ran home.", tokenizer)
    assert found is not None
    ids = tokenizer("One day a", add_special_tokens=False)["input_ids"]
    assert (found["token"], found["character"]) == (len(ids), 10)
    assert "cat" in found["model"] and "dog" in found["baseline"]
    longer = similarity.first_divergence("One day", "One day a dog", tokenizer)
    assert longer is not None and longer["model"] == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a"}\n{"text": "b"}\n', "line 2 needs `prompt`"),
        ('{"messages": [{"role": "user"}]}\n', "line 1 needs `prompt`"),
        ("not json\n", "is no .jsonl file"),
        ("", "has no prompts"),
    ],
)
def test_similarity_refuses_prompts(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=message):
        similarity.run(job(Scripted(lambda text, i: ""), prompts=path))


def test_similarity_refuses_encoders(prompts: Path, tmp_path: Path) -> None:
    target = Scripted(lambda text, i: "x y")
    with pytest.raises(EvaluationError, match="--sts-model takes a folder"):
        similarity.run(job(target, target, prompts=prompts, sts_model=tmp_path / "none"))
    with pytest.raises(EvaluationError, match="BERTScore needs an encoder"):
        similarity.run(job(target, target, prompts=prompts, bertscore_model=DEMO))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EvaluationError, match="cannot be loaded as an encoder"):
        similarity.run(job(target, target, prompts=prompts, sts_model=tmp_path))
