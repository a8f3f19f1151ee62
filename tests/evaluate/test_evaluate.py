# SPDX-License-Identifier: Apache-2.0
"""A run as a whole: flips that were made are reported; results are kept, read strictly and gone on from."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import refused
from tiny import tiny_ids
from tiny_tokens import WORDS, tiny_tokenizer

import pennyweight as pw
from pennyweight.errors import EvaluationError
from pennyweight.evaluate import results
from pennyweight.evaluate.suites import SUITES, Job, Suite, SuiteResult

#: Least distance between the two likeliest choices: batches of other sizes may round otherwise.
MARGIN = 0.05


def fifty(job: Job) -> SuiteResult:
    """A multiple-choice suite: the likeliest of four tokens after a prompt."""
    items = []
    questions = [json.loads(line) for line in Path(job.options.data).read_text().splitlines()]
    for number, question in enumerate(questions):
        item = job.store.get(question["id"])
        if item is None:
            rows = [[*question["prompt"], choice] for choice in question["choices"]]
            scores = [float(row[-1]) for row in job.target.log_likelihoods(rows)]
            right = max(range(4), key=scores.__getitem__) == question["answer"]
            item = job.store.put(question["id"], {"id": question["id"], "correct": right})
        items.append(item)
        job.progress(number + 1, len(questions))
    score = 100 * sum(item["correct"] for item in items) / len(items)
    return SuiteResult({"accuracy": score}, {"fifty": score}, items)


@pytest.fixture
def suite_fifty(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("pennyweight.evaluate.fifty")
    module.run = fifty  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pennyweight.evaluate.fifty", module)
    monkeypatch.setitem(SUITES, "fifty", Suite("fifty", "fifty questions", "fifty"))


def questions(model: Any, quantized: Any, path: Path, *, lost: int, gained: int) -> Path:
    """Write 50 questions of which the quantized model gets so many wrong, and right, that the other does not."""
    random = torch.Generator().manual_seed(0)
    prompts = torch.randint(256, (600, 5), generator=random)
    choices = torch.stack([torch.randperm(256, generator=random)[:4] for _ in range(600)])
    wanted = {"lost": lost, "gained": gained, "right": 30 - lost, "wrong": 20 - gained}
    found: list[dict[str, Any]] = []
    picks = []
    for one in (model, quantized):
        logits = pw.evaluate.open_target(one).logits(prompts)[:, -1].log_softmax(-1).gather(-1, choices)
        best = logits.sort(-1, descending=True)
        picks.append((best.indices[:, 0].tolist(), (best.values[:, 0] - best.values[:, 1] > MARGIN).tolist()))
    (before, sure), (now, sure_now) = picks
    for i in range(600):
        if not (sure[i] and sure_now[i]):
            continue
        kinds = ("lost", "gained") if before[i] != now[i] else ("right", "wrong")
        kind = max(kinds, key=wanted.__getitem__)
        if wanted[kind]:
            wanted[kind] -= 1
            answer = {"lost": before[i], "right": before[i], "gained": now[i], "wrong": (now[i] + 1) % 4}[
                kind
            ]
            question = {"prompt": prompts[i].tolist(), "choices": choices[i].tolist(), "answer": answer}
            found.append({"id": f"q{len(found)}", **question})
    assert not any(wanted.values()), wanted
    path.write_text("\n".join(json.dumps(question) for question in found))
    return path


@pytest.mark.parametrize(
    ("lost", "gained", "p", "verdict"),
    [(9, 1, 22 / 1024, "worse"), (3, 2, 1.0, "no difference shown"), (0, 6, 2 / 64, "better")],
)
@pytest.mark.usefixtures("suite_fifty")
def test_fifty_questions_flip_as_they_were_made_to(
    pennyweight: Callable, model: Any, quantized: Any, folders: Path, tmp_path: Path,
    lost: int, gained: int, p: float, verdict: str,
) -> None:  # fmt: skip
    data = questions(model, quantized, tmp_path / "questions.jsonl", lost=lost, gained=gained)
    done = pennyweight("evaluate", folders / "int4", "--baseline", folders / "bf16", "--suite", "fifty",
                       "--data", data, "--out", tmp_path / "out", "--json", tmp_path / "all.json")  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert verdict in done.out
    suite = pw.evaluate.read(tmp_path / "out" / "int4.json")["suites"]["fifty"]
    pairs = suite["pairs"]
    assert (pairs["n"], pairs["lost"], pairs["gained"], pairs["verdict"]) == (50, lost, gained, verdict)
    assert pairs["mcnemar_p"] == pytest.approx(p)
    assert pairs["difference"] == pytest.approx((gained - lost) / 50)
    assert suite["recovery"]["value"] == pytest.approx(100 * (30 - lost + gained) / 30)
    assert suite["recovery"]["low"] < suite["recovery"]["value"] < suite["recovery"]["high"]
    assert json.loads((tmp_path / "all.json").read_text())["models"][0]["suites"]["fifty"] == suite


def quick(pennyweight: Callable, folders: Path, out: Path, *more: object) -> Any:
    """Run `quick` on the tiny models."""
    return pennyweight("evaluate", folders / "int4", "--baseline", folders / "bf16", "--suite", "quick",
                       "--data", folders / "text.txt", "--length", 50, "--out", out, *more)  # fmt: skip


def test_evaluate_prints_a_table_and_writes_a_result_per_model(
    pennyweight: Callable, folders: Path, tmp_path: Path
) -> None:
    done = quick(pennyweight, folders, tmp_path)
    assert (done.code, done.err) == (0, "")
    head, first, second = done.out.split("\n")[1:4]
    assert head.split()[:4] == ["model", "perplexity", "bits_per_byte", "kl"]
    assert (first.split()[0], second.split()[0]) == ("bf16", "int4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bf16.json", "int4.json"]
    result = pw.evaluate.read(tmp_path / "int4.json")
    assert result["model"]["scheme"] == "W4A16-INT" and len(result["model"]["hash"]) == 64
    assert result["baseline"]["hash"] == pw.evaluate.read(tmp_path / "bf16.json")["model"]["hash"]
    assert {"torch", "transformers", "python"} <= set(result["versions"])
    suite = result["suites"]["quick"]
    assert suite["metrics"]["kl"] > 0 and len(suite["items"]) == 8 and suite["options"]["length"] == 50
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert quick(pennyweight, folders, tmp_path).out == done.out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps  # taken as they are
    quick(pennyweight, folders, tmp_path, "--limit", 3)
    assert len(pw.evaluate.read(tmp_path / "int4.json")["suites"]["quick"]["items"]) == 3


@pytest.mark.usefixtures("suite_fifty")
def test_evaluate_goes_on_after_an_interruption(
    model: Any, quantized: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = questions(model, quantized, tmp_path / "questions.jsonl", lost=2, gained=1)
    target, asked = pw.evaluate.open_target(quantized, name="int4"), []
    real = target.log_likelihoods

    def stopping(rows: Any) -> Any:
        asked.append(rows)
        if len(asked) == 20:
            raise KeyboardInterrupt
        return real(rows)

    monkeypatch.setattr(target, "log_likelihoods", stopping)
    arguments = {
        "baseline": model,
        "suites": "fifty",
        "data": data,
        "out": tmp_path / "out",
        "progress": False,
    }
    with pytest.raises(KeyboardInterrupt):
        pw.evaluate(target, **arguments)
    partial = pw.evaluate.read(tmp_path / "out" / "int4.json")["suites"]["fifty"]
    assert partial["partial"] and len(partial["items"]) == 19 and partial["pairs"] is None
    (store,) = (tmp_path / "out" / ".resume" / "int4").iterdir()
    store.write_bytes(store.read_bytes()[:-5])  # as a power cut leaves it
    found = pw.evaluate(target, **arguments)["int4"]["fifty"]
    assert len(asked) == 20 + 50 - 18
    assert (found["partial"], found["pairs"]["lost"], found["pairs"]["gained"]) == (False, 2, 1)
    assert not (tmp_path / "out" / ".resume").exists()


def test_store_goes_on_after_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    first = results.Store(path)
    first.put("a", {"x": 1})
    first.put("b", {"x": 2})
    path.write_bytes(path.read_bytes()[:-5])  # as a power cut leaves it
    second = results.Store(path)
    assert (second.get("a"), second.get("b")) == ({"x": 1}, None)
    second.put("c", {"x": 3})
    third = results.Store(path)
    assert third.items() == [{"x": 1}, {"x": 3}]


def damaged(path: Path, how: str) -> None:
    text = path.read_text()
    result = json.loads(text)
    if how == "truncated":
        path.write_text(text[: len(text) // 2])
    elif how == "version":
        path.write_text(json.dumps({**result, "schema": 7}))
    elif how == "edited":
        result["suites"]["quick"]["metrics"]["kl"] /= 2
        path.write_text(json.dumps(result))
    elif how == "lacking":
        path.write_text(json.dumps({key: value for key, value in result.items() if key != "suites"}))
    elif how == "suite":
        result["suites"]["quick"]["items"] = 5
        path.write_text(json.dumps(result))
    else:
        path.write_text("[1]")


DAMAGES = {
    "truncated": "int4.json: is truncated or no JSON",
    "version": "int4.json: has schema 7, this pennyweight reads 1",
    "edited": "int4.json: was changed after it was written",
    "lacking": "int4.json: suites is missing",
    "suite": "int4.json: suites.quick.items is 5: truncated or changed by hand",
    "other": "int4.json: is no result of pennyweight evaluate",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, folders: Path) -> Path:
    out = tmp_path_factory.mktemp("finished")
    pw.evaluate(
        folders / "int4",
        baseline=folders / "bf16",
        data=folders / "text.txt",
        length=50,
        out=out,
        progress=False,
    )
    return out / "int4.json"


@pytest.mark.parametrize(("how", "text"), DAMAGES.items(), ids=DAMAGES)
def test_damaged_result_is_one_line(
    pennyweight: Callable, folders: Path, finished: Path, tmp_path: Path, how: str, text: str
) -> None:
    path = tmp_path / "int4.json"
    path.write_text(finished.read_text())
    assert results.read(path)["model"]["name"] == "int4"
    damaged(path, how)
    kept = path.read_text()
    refused(quick(pennyweight, folders, tmp_path), text)
    assert path.read_text() == kept


def test_result_of_another_model_is_not_overwritten(
    pennyweight: Callable, folders: Path, finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "bf16.json").write_text(finished.read_text())
    refused(quick(pennyweight, folders, tmp_path), "is the result of another model of this name")


def test_result_never_holds_nan(tmp_path: Path, finished: Path) -> None:
    result = results.read(finished)
    result["suites"]["quick"]["metrics"]["kl"] = float("nan")
    with pytest.raises(EvaluationError, match="NaN or Inf"):
        results.write(tmp_path / "x.json", result)
    assert list(tmp_path.iterdir()) == []


REFUSALS: dict[str, tuple[tuple[object, ...], str]] = {
    "unknown-suite": (("--suite", "quik"), "'quik' is no suite; did you mean quick?"),
    "no-data": (("--suite", "quick"), "quick: needs text to measure on; give --data FILE"),
    "missing-data": (("--suite", "quick", "--data", "/nowhere.txt"), "/nowhere.txt does not exist"),
    "missing-prompts": (
        ("--suite", "quick", "--prompts", "/nowhere.jsonl"),
        "/nowhere.jsonl: does not exist",
    ),
    "limit": (("--suite", "quick", "--limit", 0), "limit must be at least 1; got 0"),
    "no-suite": ((), "Missing option '--suite'"),
}


@pytest.mark.parametrize(("options", "text"), REFUSALS.values(), ids=REFUSALS)
def test_evaluate_refuses(
    pennyweight: Callable, folders: Path, options: tuple[object, ...], text: str
) -> None:
    refused(pennyweight("evaluate", folders / "int4", *options), text)


def test_evaluate_refuses_other_folders(pennyweight: Callable, folders: Path, tmp_path: Path) -> None:
    more = ("--suite", "quick", "--data", folders / "text.txt")
    refused(pennyweight("evaluate", tmp_path / "none", *more), "none: does not exist")
    refused(
        pennyweight("evaluate", folders / "int4", "--baseline", tmp_path, *more), "config.json: is missing"
    )


def test_baseline_with_another_tokenizer_is_refused(model: Any, quantized: Any) -> None:
    other = tiny_tokenizer([*WORDS[:100], "other", *WORDS[101:]])
    targets = [pw.evaluate.open_target(quantized, tokenizer=tiny_tokenizer()),
               pw.evaluate.open_target(model, tokenizer=other, name="bf16")]  # fmt: skip
    with pytest.raises(EvaluationError, match="256 and 256 tokens, 'other' is none here and 100 there"):
        pw.evaluate(targets[0], baseline=targets[1], data=tiny_ids(1, 8), progress=False)


def test_models_of_one_name_are_told_apart(model: Any, tmp_path: Path) -> None:
    found = pw.evaluate([model, model], data=tiny_ids(2, 8), out=tmp_path, progress=False)
    assert [result["model"]["name"] for result in found.models] == ["model", "model-2"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model-2.json"}
    assert "model-2" in found._repr_html_()


def test_quantizing_and_fusing_change_no_number_of_parameters(
    model: Any, quantized: Any, folders: Path
) -> None:
    whole = sum(p.numel() for p in model.parameters())
    fused = pw.load(folders / "int4", fuse=True)
    for one in (model, quantized, fused, folders / "int4"):
        assert pw.evaluate.open_target(one).describe()["parameters"] == whole


def test_command_compares_with_the_study_s_nearest_model(
    pennyweight: Callable, folders: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "w1 w2"}')
    done = pennyweight("evaluate", folders / "int4", "--baseline", folders / "bf16", "--suite", "similarity",
                       "--prompts", tmp_path / "prompts.jsonl", "--max-new-tokens", 2,
                       "--compare-with-study")  # fmt: skip
    assert (done.code, done.err) == (0, "")
    assert "similarity beside the study's Llama-3.1-8B-Instruct, W4A16-INT" in done.out
    assert "M parameters, the study's nearest by size is Llama-3.1-8B-Instruct" in done.out


@pytest.mark.usefixtures("suite_fifty")
def test_command_shows_the_suites_of_this_run(
    pennyweight: Callable, model: Any, quantized: Any, folders: Path, tmp_path: Path
) -> None:
    data = questions(model, quantized, tmp_path / "questions.jsonl", lost=2, gained=1)
    assert quick(pennyweight, folders, tmp_path / "out").code == 0
    done = pennyweight("evaluate", folders / "int4", "--baseline", folders / "bf16", "--suite", "fifty",
                       "--data", data, "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0 and done.out.startswith("fifty\n") and "perplexity" not in done.out
    assert set(pw.evaluate.read(tmp_path / "out" / "int4.json")["suites"]) == {"quick", "fifty"}


def test_unknown_option_and_missing_extra_are_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvaluationError, match="'sampels' is no option; did you mean samples"):
        pw.evaluate(model, data=tiny_ids(1, 8), sampels=3)
    monkeypatch.setitem(SUITES, "far", Suite("far", "", "far", extra="far", imports=("far_away", "far_off")))
    with pytest.raises(EvaluationError, match=r'needs far_away, far_off.*pip install "pennyweight\[far\]"'):
        pw.evaluate(model, suites="far")


@pytest.mark.parametrize("name", SUITES)
def test_suite_says_what_it_needs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = SUITES[name]
    assert suite.summary and (suite.extra is None) == (not suite.imports)
    if suite.imports:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(
            EvaluationError, match=rf'needs {suite.imports[0]}.*pip install "pennyweight\[{suite.extra}\]"'
        ):
            suite.load()


def test_quick_needs_the_core_alone(folders: Path) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))  # None: it cannot be imported
import pennyweight as pw
found = pw.evaluate({str(folders / "int4")!r}, baseline={str(folders / "bf16")!r}, data=["w1 w2 w3 w4"], progress=False)
print(found["int4"]["quick"]["metrics"]["kl"] > 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "True\n", done.stderr


#: Imports of the extras, and what only tests use. (transformers itself imports scikit-learn and scipy where they are.)
EXTRAS = ("openai", "lm_eval", "rouge_score", "bert_score", "sentence_transformers", "math_verify", "matplotlib",
          "compressed_tensors")  # fmt: skip
