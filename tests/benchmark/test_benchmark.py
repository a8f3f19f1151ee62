# SPDX-License-Identifier: Apache-2.0
"""A run on a tiny model: what is asked for is what is timed, formats take turns, what is cut short is kept."""

from __future__ import annotations

import copy
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import refused

import pennyweight as pw
from pennyweight.benchmark import in_process, prompts, results, rows, runner
from pennyweight.benchmark.benchmark import whole
from pennyweight.benchmark.timing import Load, Query
from pennyweight.errors import MeasurementError
from pennyweight.use_cases import UseCase

CASE = UseCase("tiny", 20, 5)
FORMATS = ("bf16", "W8A8-INT", "W4A16-INT")
SMALL = ("--prefill", 20, "--decode", 5, "--repeats", 2)


@pytest.fixture(scope="module")
def found(folder: Path) -> Any:
    """Both modes of all formats."""
    return pw.benchmark(
        str(folder), modes=["sync", "async"], use_cases=CASE, formats=FORMATS, repeats=2, requests=4, rates=1,
        price=0.5, progress=False,
    )  # fmt: skip


def test_rows_are_one_for_each_format_and_mode(found: Any) -> None:
    names = ["BF16", "W8A8-INT", "W4A16-INT"]
    assert [(r["mode"], r["format"]) for r in found.rows] == [
        (m, f) for f in names for m in ("sync", "async")
    ]
    results.check("here", found.to_dict())
    for row in found.rows:
        assert (row["prefill_tokens"], row["decode_tokens"], row["repeats"], row["partial"]) == (
            20,
            5,
            2,
            False,
        )
        assert row["source"] == "in process" and row["gpu"] == "cpu"
    assert [t["baseline"] for t in found.to_dict()["targets"]] == [True, False, False]


def test_parts_of_a_row_fit_together(found: Any) -> None:
    for row in found.rows:
        assert row["inter_token_s"] < row["latency_s"] and row["ttft_s"] < row["latency_s"]
        if row["mode"] == "sync":
            assert row["queries_per_dollar"] == pytest.approx(3600 / (row["latency_s"] * 0.5))
            assert row["output_tokens_per_s"] == pytest.approx(5 / row["latency_s"])
            assert row["prefill_s"] == row["ttft_s"] and row["points"] == []
        else:
            assert row["queries_per_dollar"] == pytest.approx(3600 * row["throughput_qps"] / 0.5)
            assert [p["requests"] for p in row["points"] if p["kind"] != "synchronous"] == [4, 4]
            assert {p["kind"] for p in row["points"]} == {"synchronous", "rate", "throughput"}
            reached = [p["throughput_qps"] for p in row["points"]]
            assert reached == sorted(reached)


def test_tables_show_gain_and_money(found: Any) -> None:
    text, html = str(found), found._repr_html_()
    row = next(r for r in found.rows if (r["mode"], r["format"]) == ("async", "W8A8-INT"))
    base = next(r for r in found.rows if (r["mode"], r["format"]) == ("async", "BF16"))
    assert found.gain(row) == row["throughput_qps"] / base["throughput_qps"]
    for shown in (f"{found.gain(row):.2f} x", whole(row["queries_per_dollar"]), "price: 0.5 USD an hour"):
        assert shown in text and shown in html


def test_quantized_formats_run_fused_on_our_kernels(folder: Path) -> None:
    from pennyweight.benchmark.sides import open_sides
    from pennyweight.fuse import FusedBlock

    for fuse in (True, False):
        sides = open_sides([str(folder)], ["bf16", "W8A8-INT"], tokenizer=None, fuse=fuse, seed=0)
        fused = [any(isinstance(m, FusedBlock) for m in side.model.modules()) for side in sides]
        layers = [any(isinstance(m, pw.QuantizedLinear) for m in side.model.modules()) for side in sides]
        assert (fused, layers) == ([False, fuse], [False, True])


def test_model_object_is_measured_as_it_is(model: Any) -> None:
    small = copy.deepcopy(model)
    pw.quantize(small, "W8A8-FP", progress=False)
    before = [type(module) for module in small.modules()]
    found = pw.benchmark([model, small], use_cases=CASE, repeats=1, progress=False)
    assert [row["format"] for row in found.rows] == ["BF16", "W8A8-FP"]
    assert [type(module) for module in small.modules()] == before
    pw.quantize(model_copy := copy.deepcopy(model), "W8A8-FP", progress=False, fuse=True)
    assert pw.benchmark(model_copy, use_cases=CASE, repeats=1, progress=False).rows[0]["format"] == "W8A8-FP"


def test_query_makes_exactly_the_tokens_asked_for(model: Any) -> None:
    """The tiny model's first greedy token is made an end token, which must end nothing."""
    prompt = list(range(9, 29))
    with torch.inference_mode():
        first = int(model(torch.tensor([prompt])).logits[0, -1].argmax())
    before = model.generation_config.eos_token_id, model.config.eos_token_id
    model.generation_config.eos_token_id = model.config.eos_token_id = first
    try:
        one = in_process.query(model, prompt, 7)
        many = in_process.load(model, [prompt, prompt[::-1]], 7, "throughput")
    finally:
        model.generation_config.eos_token_id, model.config.eos_token_id = before
    assert one.latency_s >= one.ttft_s + 6 * one.inter_token_s * 0.999
    assert many.requests == 2
    assert in_process.query(model, prompt, 1).inter_token_s is None


def test_rate_spaces_queries(model: Any) -> None:
    found = in_process.load(model, [[9, 8, 7]] * 5, 2, "rate", 20.0)
    assert found.seconds >= 4 / 20 and found.throughput_qps <= 5 / (4 / 20)


def test_synchronous_load_sends_one_after_another(model: Any) -> None:
    found = in_process.load(model, [[9, 8, 7]] * 4, 2, "synchronous")
    assert found.seconds >= 3 * found.latency_s * 0.5  # medians of four that do not overlap


def test_formats_take_turns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[int]]] = []

    def query(model: Any, prompt: list[int], tokens: int) -> Query:
        form = "quantized" if any(isinstance(m, pw.QuantizedLinear) for m in model.modules()) else "bf16"
        asked.append((form, prompt))
        return Query(1.0, 0.5, 0.1)

    monkeypatch.setattr(in_process, "query", query)
    pw.benchmark(str(folder), use_cases=CASE, formats=("bf16", "W8A8-INT"), repeats=3, progress=False)
    timed = asked[2:]  # without the warm-up
    assert [form for form, _ in timed] == ["quantized", "bf16", "bf16", "quantized", "quantized", "bf16"]
    assert all(timed[i][1] == timed[i + 1][1] for i in (0, 2, 4))  # one prompt for both
    assert timed[0][1] != timed[2][1]


def test_rows_are_medians() -> None:
    place = rows.Place("a100", 2, 3.58)
    queries = [Query(s, s / 4, s / 10) for s in (1.0, 2.0, 6.0)]
    row = rows.sync_row("BF16", CASE, queries, place, "in process", False)
    assert (row["latency_s"], row["ttft_s"], row["inter_token_s"], row["decode_s"]) == (2.0, 0.5, 0.2, 1.5)
    assert row["spread"] == pytest.approx((4.0 - 1.5) / 2 / 2.0)
    loads = [Load("throughput", None, q, 1 / q, 0.1, 0.01, 8, 8 / q) for q in (1.0, 4.0, 3.0)]
    row = rows.async_row("BF16", CASE, loads, [], place, "in process", False)
    assert row["throughput_qps"] == statistics.median([1.0, 4.0, 3.0]) and row["points"] == []
    assert row["queries_per_dollar"] == pytest.approx(3 * 3600 / 3.58)


def test_prompts_are_seeded_and_apart() -> None:
    drawn = prompts.draw(1000, [0, 1], 50, 30, seed=3)
    assert drawn == prompts.draw(1000, [0, 1], 50, 30, seed=3) != prompts.draw(1000, [0, 1], 50, 30, seed=4)
    assert {len(row) for row in drawn} == {30} and len({tuple(row) for row in drawn}) == 50
    flat = [token for row in drawn for token in row]
    assert min(flat) >= 2 and max(flat) < 1000
    assert flat.count(2) > 20 * flat.count(500)  # frequent ids first, as in a text


def test_random_model_of_a_config(folder: Path) -> None:
    found = pw.benchmark(f"random:{folder}", use_cases=CASE, repeats=1, progress=False).to_dict()
    (target,) = found["targets"]
    assert (target["kind"], target["format"], target["hash"]) == ("random", "BF16", None)
    assert found["model"]["config"]["hidden_size"] == 128 and found["rows"][0]["spread"] is None


def test_command_writes_what_it_shows(pennyweight: Callable, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    done = pennyweight(
        "benchmark", f"BF16={folder}", "--mode", "sync", *SMALL, "--price", "0.5", "--json", out
    )
    assert (done.code, done.err) == (0, "")
    (row,) = results.read(out)["rows"]
    assert whole(row["queries_per_dollar"]) in done.out and done.out.endswith(f"saved to {out}\n")


def test_stopped_run_keeps_its_rows_marked(
    pennyweight: Callable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, out = in_process.query, [], tmp_path / "speed.json"

    def stop(*arguments: Any) -> Query:
        calls.append(1)
        if len(calls) == 5:  # two warm-ups, one query of each, the second of the second
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)  # the signal arrives here
        return real(*arguments)

    monkeypatch.setattr(in_process, "query", stop)
    done = pennyweight("benchmark", folder, "--formats", "bf16,W8A8-FP", *SMALL, "--json", out)
    assert done.code == 130
    assert done.err == f"pennyweight: interrupted, what was measured is in {out}, marked as partial\n"
    kept = results.read(out)
    assert kept["partial"] and [(r["format"], r["repeats"], r["partial"]) for r in kept["rows"]] == [
        ("BF16", 1, True), ("W8A8-FP", 1, True)
    ]  # fmt: skip
    assert any(note.startswith("partial: stopped by") for note in kept["notes"])


def test_stopped_load_does_not_wait_for_its_queries(
    pennyweight: Callable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = in_process._answer

    def stop(manager: Any, drawn: Any, tokens: int, *rest: Any) -> Any:
        if tokens > 2:
            for prompt in drawn:
                manager.add_request(list(prompt), max_new_tokens=200, eos_token_id=-1)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return real(manager, drawn, tokens, *rest)

    monkeypatch.setattr(in_process, "_answer", stop)
    out = tmp_path / "speed.json"
    done = pennyweight(
        "benchmark", folder, "--mode", "async", "--prefill", 20, "--decode", 200, "--json", out
    )
    assert (done.code, done.err) == (130, "pennyweight: interrupted, nothing was kept\n")
    assert not out.exists()


REFUSALS: dict[str, tuple[tuple[object, ...], str]] = {
    "use case": (("--use-case", "ragg"), "use case 'ragg' is not known; did you mean rag"),
    "mode": (("--mode", "fast"), "mode 'fast' is not known"),
    "scale 0": (("--scale", 0), "scale must be above 0 and at most 1; got 0"),
    "scale text": (("--scale", "small"), "--scale must be a number; got 'small'"),
    "scale nan": (("--scale", "nan"), "scale must be above 0"),
    "price 0": ((*SMALL, "--price", 0), "price must be a number above 0, in USD an hour; got 0.0"),
    "price negative": ((*SMALL, "--price=-1"), "price must be a number above 0, in USD an hour; got -1.0"),
    "price text": ((*SMALL, "--price", "cheap"), "--price must be a number; got 'cheap'"),
    "prices missing": ((*SMALL, "--prices", "/nowhere.json"), "/nowhere.json: cannot be read"),
    "gpu": ((*SMALL, "--gpu", "h10"), "no price of h10"),
    "gpus": ((*SMALL, "--gpus", 0), "gpus must be a whole number, 1 or more; got 0"),
    "prefill 0": (("--prefill", 0, "--decode", 5), "prefill must be a whole number of tokens, 1 or more; got 0"),
    "prefill text": (("--prefill", "long", "--decode", 5), "prefill must be a whole number of tokens"),
    "decode negative": (("--prefill", 5, "--decode=-3"), "decode must be a whole number of tokens, 1 or more; got -3"),
    "decode missing": (("--prefill", 5), "--prefill and --decode belong together"),
    "repeats": ((*SMALL, "--repeats", 0), "repeats must be a whole number, 1 or more; got 0"),
    "rates": ((*SMALL, "--rates=-1"), "rates must be a whole number, 0 or more; got -1"),
    "format": ((*SMALL, "--formats", "bf16,W8A9"), "'W8A9' is not known"),
    "too long": (("--use-case", "rag"), "reads at most 256 tokens, rag would need up to 1152; leave them out, or take"),
    "report": (("--guidellm", "report.json"), "a report does not say which format it is of"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "says"), REFUSALS.values(), ids=REFUSALS)
def test_benchmark_refuses(
    pennyweight: Callable, folder: Path, options: tuple[object, ...], says: str
) -> None:
    refused(pennyweight("benchmark", folder, *options), says)


def test_benchmark_refuses_targets(pennyweight: Callable, folder: Path, tmp_path: Path, model: Any) -> None:
    refused(pennyweight("benchmark"), "nothing to measure")
    refused(pennyweight("benchmark", tmp_path / "none", *SMALL), "none")
    refused(pennyweight("benchmark", "random:llama-4", *SMALL), "is neither a shape that is known (llama-3")
    refused(pennyweight("benchmark", folder, folder, *SMALL), "tiny and tiny are both BF16; name one of them")
    with pytest.raises(MeasurementError, match=r"formats of one model: hidden_size is 128 and 64"):
        pw.benchmark([model, f"two=random:{smaller(folder, tmp_path)}"], use_cases=CASE, progress=False)


def smaller(folder: Path, tmp_path: Path) -> Path:
    config = json.loads((folder / "config.json").read_text()) | {"hidden_size": 64}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return path


def test_scale_that_is_advised_fits(pennyweight: Callable, folder: Path) -> None:
    told = pennyweight("benchmark", folder, "--use-case", "rag").err
    scale = told.split("--scale ")[1].strip()
    case = pw.use_cases.use_case("rag").scaled(float(scale))
    assert 200 < case.tokens <= 256


def test_versions_and_machine_are_kept(found: Any) -> None:
    result = found.to_dict()
    assert result["machine"]["cores"] == os.cpu_count() and result["machine"]["name"]
    assert {"python", "torch", "transformers"} <= result["versions"].keys()
    assert result["settings"]["use_cases"] == ["tiny"] and result["settings"]["fuse"] is True
    assert set(runner.VERSIONS) >= set(result["versions"]) - {"python"}
