# SPDX-License-Identifier: Apache-2.0
"""Advice from files of benchmark and evaluate: what they say is advised, and files that do not belong are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import point, result, row, target

import pennyweight as pw
from pennyweight.cli import main
from pennyweight.errors import MeasurementError
from pennyweight.evaluate import results as evaluations
from pennyweight.recommend.crossing import crossing
from pennyweight.recommend.shapes import WORDS, shape

#: A model of the 1B shape, as a benchmark describes it.
CONFIG = {word: getattr(shape("llama-3.2-1b"), word) for word in (*WORDS, "num_key_value_heads", "head_dim")}
MODEL = {
    "name": "random-1b",
    "parameters": 1_235_814_400,
    "config": {**CONFIG, "tie_word_embeddings": True},
}


def bench(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(result(**{"model": MODEL, **changes})))
    return path


def evaluation(path: Path, format_: str, percent: float, **model: Any) -> Path:
    """A result of evaluate: one suite, and its recovery."""
    suite = {
        "metrics": {}, "tasks": {"mmlu": 60.0}, "recovery": {"value": percent, "low": None, "high": None},
        "pairs": None, "items": [], "notes": [], "partial": False, "seconds": 1.0, "options": {},
    }  # fmt: skip
    evaluations.write(
        path,
        {
            "pennyweight": "0.1.0", "model": {"name": f"tiny-{format_}", "scheme": format_, **model},
            "baseline": {"name": "tiny"}, "suites": {"openllm-v1": suite}, "versions": {}, "seed": 0,
        },
    )  # fmt: skip
    return path


def test_fastest_measured_is_advised_in_both_modes(tmp_path: Path) -> None:
    """One at a time INT4 is faster, many at once INT8; prices and machine are those of the benchmark."""
    rows = [
        row("BF16", "sync", 2.0), row("W4A16-INT", "sync", 1.0), row("W8A8-INT", "sync", 1.2),
        row("BF16", "async", 5.0, 1.5), row("W4A16-INT", "async", 2.5, 2.0), row("W8A8-INT", "async", 2.0, 3.0),
    ]  # fmt: skip
    file = bench(tmp_path / "b.json", rows=rows, targets=[target(r["format"]) for r in rows[:3]])
    sync = pw.recommend(measurements=[file], use_case="rag")
    assert [c.format for c in sync.choices] == ["W4A16-INT", "W8A8-INT", "BF16"]
    assert (sync.gpu, sync.model) == ("cpu", "random-1b")
    assert sync.source == f"measured on a CPU, 2 cores with {file}"
    assert sync.choices[0].cost_per_1k_queries == pytest.approx(1000 * 1.0 * 0.5 / 3600)
    assert sync.choices[0].times_cheaper == 2 and sync.choices[0].recovery is None
    assert any("102 tokens in and 13 out, not 1024 and 128" in note for note in sync.notes)
    assert sync.command == (
        "pennyweight quantize /models/tiny-BF16 tiny-BF16-w4a16-int --scheme W4A16-INT --calibration texts.jsonl"
    )
    many = pw.recommend(measurements=[file], use_case="rag", mode="async", price=2)
    assert [c.format for c in many.choices] == ["W8A8-INT", "W4A16-INT", "BF16"]
    assert many.choices[0].cost_per_1k_queries == pytest.approx(1000 * 2 / 3600 / 3)
    assert many.prices == "given by the user"


def test_lengths_of_ones_own_are_found(tmp_path: Path) -> None:
    rows = [
        row(form, "sync", latency, use_case="300-20", prefill_tokens=300, decode_tokens=20)
        for form, latency in (("BF16", 2.0), ("W8A8-FP", 1.0))
    ]
    advice = pw.recommend(measurements=[bench(tmp_path / "b.json", rows=rows)], prefill=300, decode=20)
    assert advice.headline == "Take W8A8-FP." and not any("tokens in" in note for note in advice.notes)


def test_random_model_has_no_command(tmp_path: Path) -> None:
    file = bench(tmp_path / "b.json", targets=[target("BF16", kind="random", source="random:llama-3.2-1b")])
    advice = pw.recommend(measurements=[file], use_case="rag")
    assert advice.headline == "Take W4A16-INT." and advice.command is None


def test_bf16_stays_where_nothing_is_faster(tmp_path: Path) -> None:
    rows = [row("BF16", "sync", 1.0), row("W4A16-INT", "sync", 1.01)]
    advice = pw.recommend(measurements=[bench(tmp_path / "b.json", rows=rows)], use_case="rag")
    assert advice.headline == "Stay with BF16 (W4A16-INT within 2 %)."


def test_latency_bound_is_read_off_the_sweep(tmp_path: Path) -> None:
    """BF16 reaches 1 query/s at 2.5 s and 1.5 at 5 s: at 3.75 s half-way between; INT4 keeps its maximum."""
    advice = pw.recommend(
        measurements=[bench(tmp_path / "b.json")], use_case="rag", mode="async", max_latency=3.75
    )
    int4, bf16 = advice.choices
    assert (int4.format, int4.throughput_qps, int4.latency_s) == ("W4A16-INT", 3.0, 2.5)
    assert (bf16.throughput_qps, bf16.latency_s) == (pytest.approx(1.25), 3.75)
    with pytest.raises(MeasurementError, match=r"W4A16-INT, misses the latency bound of 0.4 s by 0.6 s"):
        pw.recommend(measurements=[bench(tmp_path / "b.json")], use_case="rag", mode="async", max_latency=0.4)


def test_measured_curves_cross(tmp_path: Path) -> None:
    """INT4 answers in 1 s at 1 query/s and in 3 at 2; INT8 in 1.5 and 2: they meet half-way between, at 4/3."""
    four = [point("synchronous", 1.0, 1.0), point("throughput", 2.0, 3.0)]
    eight = [point("synchronous", 1.0, 1.5), point("throughput", 3.0, 2.5)]
    rows = [
        row("W4A16-INT", "async", 3.0, 2.0, points=four),
        row("W8A8-INT", "async", 2.5, 3.0, points=eight),
    ]
    advice = pw.recommend(measurements=[bench(tmp_path / "b.json", rows=rows)], use_case="rag", mode="async")
    assert advice.crossings == ("rag: W4A16-INT answers faster below 1.33 queries/s, W8A8-INT above.",)


@pytest.mark.parametrize(
    ("one", "other", "at"),
    [
        (((1, 1), (2, 3)), ((1, 2), (2, 2)), 1.5),
        (((1, 1), (2, 2)), ((1, 3), (4, 4)), 2),  # beyond its maximum it answers no more
        (((1, 1), (4, 2)), ((1, 2), (2, 3)), None),
        (((1, 2), (4, 3)), ((1, 1), (4, 2)), None),
    ],
)
def test_crossing_by_hand(one: Any, other: Any, at: float | None) -> None:
    assert crossing(one, other) == (None if at is None else pytest.approx(at))


def test_recovery_is_evaluate_s_and_the_lowest(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    evaluation(runs / "int4.json", "W4A16-INT", 97.5)
    file = bench(tmp_path / "b.json")
    advice = pw.recommend(measurements=[file, runs], use_case="rag", min_recovery=98)
    assert advice.headline == "Stay with BF16."
    assert advice.choices[1].recovery == 97.5
    assert advice.choices[1].recovery_source == "evaluate, openllm-v1, tiny-W4A16-INT"
    unknown = pw.recommend(measurements=[file], use_case="rag", min_recovery=98)
    assert unknown.choices[1].reason == "Its recovery is unknown: measure it with pennyweight evaluate."
    known = pw.recommend("llama-3.1-8b", "a6000", measurements=[runs / "int4.json"], use_case="rag")
    assert {c.format: c.recovery for c in known.choices}["W4A16-INT"] == 97.5  # before the study's 96.1


def test_another_source_where_measurements_lack_the_mode(tmp_path: Path) -> None:
    rows = [row("BF16", "sync", 2.0, gpu="h100"), row("W4A16-INT", "sync", 1.0, gpu="h100")]
    machine = {"name": "NVIDIA H100 80GB HBM3", "gpu": "h100", "gpus": 1}
    file = bench(tmp_path / "b.json", rows=rows, machine=machine)
    advice = pw.recommend(measurements=[file], use_case="rag", mode="async")
    assert advice.source == "roofline model"
    assert any("measurements have no async rows of rag" in note for note in advice.notes)
    with pytest.raises(MeasurementError, match="neither study nor model covers 'cpu'; measure it with"):
        pw.recommend(measurements=[bench(tmp_path / "c.json", rows=rows[:1])], use_case="rag", mode="async")


def test_format_that_was_not_measured_on_all_is_named(tmp_path: Path) -> None:
    rows = [
        row("BF16", "sync", 2.0), row("BF16", "sync", 2.0, use_case="summarization"), row("W4A16-INT", "sync", 1.0),
    ]  # fmt: skip
    file = bench(tmp_path / "b.json", rows=rows)
    advice = pw.recommend(measurements=[file], use_case="rag=0.5,summarization=0.5")
    assert [c.format for c in advice.choices] == ["BF16"]
    assert "W4A16-INT: not measured on summarization, and so not ranked." in advice.notes


def test_stopped_run_is_told(tmp_path: Path) -> None:
    rows = [row("BF16", "sync", 2.0), row("W4A16-INT", "sync", 1.0, partial=True)]
    advice = pw.recommend(measurements=[bench(tmp_path / "b.json", rows=rows)], use_case="rag")
    assert "W4A16-INT, rag: its run was stopped early." in advice.notes


def test_what_does_not_belong_is_refused(tmp_path: Path) -> None:
    """Another machine, another GPU than asked for, another model, other lengths."""
    file = bench(tmp_path / "a.json")
    other = bench(tmp_path / "b.json", machine={"name": "another CPU", "gpu": "cpu", "gpus": 1})
    eight = bench(
        tmp_path / "c.json",
        model={"name": "8b", "config": {w: getattr(shape("llama-3.1-8b"), w) for w in WORDS}},
    )
    longer = bench(tmp_path / "d.json", rows=[row("W8A8-INT", "sync", 1.0, prefill_tokens=1024)])
    for files, changes, says in (
        ([file, other], {}, "measurements of different machines cannot be compared"),
        ([file], {"gpu": "a100"}, "of another machine: a CPU, 2 cores (cpu), advice is asked for a100"),
        (
            [file],
            {"model": "llama-3.1-8b"},
            "of another model: random-1b (1.24 B parameters), advice is asked for",
        ),
        ([file, eight], {}, "measurements of different models cannot be compared"),
        ([file, longer], {}, "rag was measured with different lengths: 102/13 and 1024/13 tokens"),
    ):
        with pytest.raises(MeasurementError) as caught:
            pw.recommend(measurements=files, use_case="rag", **changes)  # type: ignore[arg-type]
        assert says in str(caught.value)
    foreign = evaluation(tmp_path / "e.json", "W4A16-INT", 99.0, parameters=8_000_000_000)
    with pytest.raises(MeasurementError, match=r"evaluation of tiny-W4A16-INT is of another model: 8 B"):
        pw.recommend(measurements=[file, foreign], use_case="rag")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"kind": "bench', "is truncated or no JSON"),
        ("{}", "is no result of pennyweight benchmark or pennyweight evaluate"),
        ('{"kind": "benchmark", "schema": 99}', "has schema 99, this pennyweight reads 1"),
        ('{"suites": {}, "schema": 99}', "has schema 99, this pennyweight reads 1"),
        ('{"suites": {}, "schema": 1}', "pennyweight is missing"),
    ],
)
def test_broken_file_is_refused_in_a_sentence(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b.json"
    file.write_text(text)
    assert main(["recommend", str(file), "--use-case", "rag"]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_changed_measurement_is_refused(tmp_path: Path) -> None:
    file = bench(tmp_path / "b.json")
    file.write_text(file.read_text().replace('"latency_s": 2.0', '"latency_s": 0.2', 1))
    with pytest.raises(MeasurementError, match="was changed after it was written"):
        pw.recommend(measurements=[file], use_case="rag")
