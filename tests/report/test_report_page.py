# SPDX-License-Identifier: Apache-2.0
"""The page: what it shows of runs, that it needs nothing else, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pennyweight.benchmark import results as benchmarks
from pennyweight.cli import main
from pennyweight.errors import EvaluationError
from pennyweight.evaluate import results
from pennyweight.report import LayerReport, Report
from pennyweight.report.page import report

pytest.importorskip("matplotlib")
Json = dict[str, Any]
VOID = {"meta", "br", "path", "use", "rect", "image", "clippath"}


def described(name: str, scheme: str, size: int) -> Json:
    return {
        "name": name, "kind": "folder", "source": name, "scheme": scheme, "dtype": "bfloat16", "device": "cpu",
        "bytes": size, "hash": f"hash-of-{name}",
    }  # fmt: skip


def suite(**changes: Any) -> Json:
    return {
        "metrics": {}, "tasks": {}, "recovery": None, "pairs": None, "items": [], "notes": [], "partial": False,
        "seconds": 1.0, "options": {},
    } | changes  # fmt: skip


def evaluation(model: Json, baseline: Json | None, suites: Json) -> Json:
    return results.sealed({
        "pennyweight": "0.1.0", "model": model, "baseline": baseline, "suites": suites,
        "versions": {"torch": "2.13.0"}, "seed": 7,
    })  # fmt: skip


BASE = described("Llama-3.1-8B-Instruct", "bfloat16", 16_000_000)
SMALL = described("small-w4", "W4A16-INT", 4_000_000)
PAIRS = {
    "n": 50, "gained": 2, "lost": 9, "mcnemar_p": 0.0654, "difference": -0.14, "low": -0.26, "high": -0.02,
    "verdict": "no difference shown",
}  # fmt: skip
ANSWERS = [
    {"id": "0", "prompt": "Say <b>hi</b>", "baseline_text": "Hello there, friend", "model_text": "Hello here, friend",
     "first_divergence": {"character": 6, "token": 1, "model": "here", "baseline": "there"}},
    {"id": "1", "prompt": "One?", "baseline_text": "1", "model_text": "1", "first_divergence": None},
]  # fmt: skip
RUNS = [
    evaluation(BASE, None, {"openllm-v1": suite(tasks={"mmlu": 68.0, "gsm8k": 80.0}, metrics={"average": 74.0})}),
    evaluation(SMALL, BASE, {
        "quick": suite(metrics={"kl": 0.01234, "flips": 0.0321, "top1": 0.9512, "perplexity": 13.8}),
        "openllm-v1": suite(tasks={"mmlu": 66.0, "gsm8k": 80.0}, metrics={"average": 73.0}, pairs=PAIRS,
                            recovery={"value": 98.65, "low": 96.1, "high": 100.2}),
        "similarity": suite(items=ANSWERS, notes=["sts was not measured"]),
    }),
]  # fmt: skip
SENSITIVITY = {
    "version": 1, "recipe": {"scheme": "W4A16-INT"}, "by": "kind", "tokens": 1024, "perplexity": 13.0, "kl_all": 0.02,
    "perplexity_all": 13.5,
    "parts": [{"name": "down", "layers": 2, "kl": 0.012, "perplexity": 13.3, "kl_without": 0.008,
               "perplexity_without": 13.2}],
}  # fmt: skip


def timed(form: str, mode: str, latency: float, throughput: float | None, points: list[Json]) -> Json:
    return {
        "format": form, "use_case": "rag", "mode": mode, "prefill_tokens": 102, "decode_tokens": 13,
        "latency_s": latency, "throughput_qps": throughput, "ttft_s": 0.1, "inter_token_s": 0.02, "prefill_s": None,
        "decode_s": None, "output_tokens_per_s": 13 * (throughput or 1 / latency), "gpu": "cpu", "gpus": 1,
        "usd_per_hour": 0.5, "queries_per_dollar": 7200 * (throughput or 1 / latency), "repeats": 3, "spread": 0.02,
        "source": "in process", "partial": False, "points": points,
    }  # fmt: skip


def swept(throughput: float, between: float) -> Json:
    return {"kind": "rate", "rate_qps": throughput, "throughput_qps": throughput, "latency_s": 1.0, "ttft_s": 0.1,
            "inter_token_s": between, "requests": 8, "seconds": 4.0}  # fmt: skip


SPEED = benchmarks.sealed({
    "pennyweight": "0.1.0", "versions": {}, "seed": 7, "seconds": 9.0, "settings": {}, "notes": [], "partial": False,
    "machine": {"name": "a CPU", "gpu": "cpu", "gpus": 1}, "model": {"name": "tiny"},
    "prices": {"source": "given by the user", "date": None, "usd_per_hour": 0.5},
    "targets": [{"format": form, "name": form, "kind": "folder", "baseline": form == "BF16"}
                for form in ("BF16", "W4A16-INT")],
    "rows": [timed("BF16", "sync", 0.5, None, []), timed("W4A16-INT", "sync", 0.24, None, []),
             timed("BF16", "async", 1.0, 1.0, [swept(0.5, 0.02), swept(1.0, 0.04)]),
             timed("W4A16-INT", "async", 1.0, 2.0, [swept(0.5, 0.01), swept(2.0, 0.05)])],
})  # fmt: skip


def quantization() -> Report:
    names = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
    ]
    layers = [
        LayerReport(n, (8, 8), "gptq", 0.0123 * (i + 1), 0.1, 0.01, 64, 0.1) for i, n in enumerate(names)
    ]
    return Report(
        {"scheme": "W4A16-INT"}, None, layers, 16_000_000, 4_000_000, 1, 2.0, ["dead columns: <none>"]
    )


class Checker(HTMLParser):
    """Each element is closed, in order; nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attributes:
            linked = key in ("src", "href", "xlink:href") and not (value or "").startswith(("#", "data:"))
            if linked or (tag in ("script", "link", "iframe")):
                self.fetched.append(f"{tag} {key}={value}")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


@pytest.fixture(scope="module")
def page() -> str:
    return report([*RUNS, quantization(), SENSITIVITY, SPEED]).html


def test_page_is_one_self_contained_file(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    assert not checker.open and not checker.fetched
    assert "@import" not in page and not re.search(r"url\((?!['\"]?(#|data:))", page)


@pytest.mark.parametrize(
    "shown",
    [
        "small-w4", "W4A16-INT", "3.8 MiB", "4.00 x smaller", "98.65 %", "[96.10, 100.20]", "0.01234", "3.21 %",
        "95.12 %",
        "97.06 %",  # mmlu: 66 of 68
        "no difference shown", "[-0.26, -0.02]", "0.0654",
        "1.2", "2.5", "3.7",  # the heat map's cells
        "dead columns: &lt;none&gt;", "W4A16-INT by kind", "hash-of-small-w4", "torch 2.13.0", "seed 7",
        "1 of 2 answers are the same text", "<mark>there,</mark>", "<mark>here,</mark>", "part at token 1",
        "54.17", "2.08 x", "± 2.0 %", "240 ms", "0.5 USD an hour, given by the user", "30,000",  # speed and cost
        "Latency against throughput, rag", "tiny on a CPU",
        "Say &lt;b&gt;hi&lt;/b&gt;", "sts was not measured", "73.11",  # the study's average
    ],
)  # fmt: skip
def test_page_shows(page: str, shown: str) -> None:
    assert shown in page


def test_missing_parts_are_said_to_be_missing() -> None:
    page = report(RUNS[1]).html
    for text in (
        "No report of quantize is among the runs",
        "No sensitivity is among the runs",
        "No benchmark is",
    ):
        assert f"Missing: {text}" in page
    only = report(quantization()).html
    assert only.count("Missing: ") == 7 and "No evaluation is among the runs" in only
    assert "Missing: " not in report([*RUNS, quantization(), SENSITIVITY, SPEED]).html


def test_partial_result_is_named() -> None:
    run = evaluation(SMALL, None, {"quick": suite(partial=True, notes=["partial: stopped by: Ctrl-C"])})
    assert "Partial results, which are no measurement: small-w4: quick" in report(run).html


def test_same_runs_give_the_same_page(page: str) -> None:
    assert report([*RUNS, quantization(), SENSITIVITY, SPEED]).html == page


def test_notebook_shows_the_page_without_its_head() -> None:
    shown = report(RUNS)._repr_html_()
    assert shown.startswith("<style>") and "<body" not in shown and "98.65 %" in shown


def test_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for i, run in enumerate(RUNS):
        (runs / f"{i}.json").write_text(json.dumps(run))
    made = tmp_path / "quantize.json"
    made.write_text(
        json.dumps({"version": 1, "source": "a", "out": "b/small-w4", "report": quantization().to_dict()})
    )
    out = tmp_path / "report.html"
    assert main(["report", str(runs), str(made), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"saved to {out}\n"
    page = out.read_text()
    assert "98.65 %" in page and "small-w4" in page and "quantize.json" in page


def truncated(text: str) -> str:
    return text[: len(text) // 2]


def other_version(text: str) -> str:
    return text.replace('"schema": 1', '"schema": 9').replace('"version": 1', '"version": 9')


def edited(text: str) -> str:
    return (
        text.replace("98.65", "99.95")
        .replace('"weight_error": 0.1', '"weight_error": "0.1"')
        .replace("0.24", "0.2")
    )


def infinite(text: str) -> str:
    return (
        text.replace("98.65", "NaN").replace('"seconds": 2.0', '"seconds": Infinity').replace("0.24", "NaN")
    )


@pytest.mark.parametrize("kind", ["evaluate", "quantize", "benchmark"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (truncated, "is truncated or no JSON"),
        (other_version, "9, this pennyweight reads 1"),
        (edited, "changed"),
        (infinite, "is no measurement"),
        (lambda _: "[1, 2]", "holds list, not the JSON of a run"),
        (lambda _: '{"a": 1}', "is none of the runs that are known here"),
    ],
    ids=["truncated", "other version", "edited", "NaN", "a list", "other JSON"],
)
def test_bad_file_is_one_sentence(
    kind: str, change: Callable[[str], str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {"evaluate": RUNS[1], "quantize": quantization().to_dict(), "benchmark": SPEED}[kind]
    path = tmp_path / "run.json"
    path.write_text(change(json.dumps(whole)))
    assert main(["report", str(path), "-o", str(tmp_path / "page.html")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith(f"pennyweight: {path}: ") and says in told
    assert not (tmp_path / "page.html").exists()


def test_absent_file_and_unwritable_page_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"absent\.json: cannot be read"):
        report(tmp_path / "absent.json")
    with pytest.raises(EvaluationError, match=r"has no \.json file"):
        report(tmp_path)
    (tmp_path / "file").write_text("here")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "page.html", tmp_path / "folder"):
        with pytest.raises(EvaluationError, match="cannot be written"):
            report(RUNS).save(place)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
