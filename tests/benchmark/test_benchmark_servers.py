# SPDX-License-Identifier: Apache-2.0
"""Servers and GuideLLM: streams are timed, reports are read as they are, faults are a sentence.

fixtures/guidellm_0.8.1.json is a report of GuideLLM 0.8.1 on its own mock server (sweep of four), cut down to what is
read and a little more.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("openai")

from command import refused
from fake_server import FakeServer, fake_server
from tiny_tokens import tiny_tokenizer

import pennyweight as pw
from pennyweight.benchmark import guidellm, results
from pennyweight.errors import MeasurementError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # connections that the faults leave open
REPORT = Path(__file__).parent / "fixtures" / "guidellm_0.8.1.json"
SMALL = ("--prefill", 12, "--decode", 4, "--repeats", 2)


@pytest.fixture
def server(model: Any) -> Iterator[FakeServer]:
    with fake_server(pw.evaluate.open_target(model, tokenizer=tiny_tokenizer())) as running:
        yield running


def test_server_is_timed_by_its_stream(
    pennyweight: Callable, server: FakeServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that ticks when it is read: four pieces come at 1, 2, 3 and 4, and the stream ends at 5."""
    monkeypatch.setattr(
        pw.evaluate.server, "time", SimpleNamespace(perf_counter=itertools.count(step=1.0).__next__)
    )
    out = tmp_path / "speed.json"
    done = pennyweight("benchmark", f"W4A16-INT={server.url}", *SMALL, "--tokenizer", folder, "--json", out)
    assert (done.code, done.err) == (0, "")
    (row,) = results.read(out)["rows"]
    assert (row["format"], row["source"], row["repeats"]) == ("W4A16-INT", "server", 2)
    assert (row["ttft_s"], row["inter_token_s"], row["latency_s"]) == (1, 1, 5)
    asked = [(len(r["prompt"]), r["max_tokens"], r["ignore_eos"]) for r in server.requests]
    assert asked == [(12, 2, True), (12, 4, True), (12, 4, True)]


def test_server_and_model_take_turns(server: FakeServer, folder: Path) -> None:
    found = pw.benchmark(
        [folder, f"W8A8-INT={server.url}"], use_cases=pw.use_cases.UseCase("tiny", 12, 4), repeats=1, progress=False,
        tokenizer=folder,
    )  # fmt: skip
    assert [(r["format"], r["source"]) for r in found.rows] == [
        ("BF16", "in process"),
        ("W8A8-INT", "server"),
    ]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("500", "answered 500"),
        ("closes", "connection failed"),
        ("short", "1 of its answer where 12 and 4 were asked for"),
        ("no-usage", "does not say how many it made"),
        ("html", "streams no tokens"),
    ],
)
def test_server_that_fails_leaves_a_partial_result(
    pennyweight: Callable, server: FakeServer, folder: Path, tmp_path: Path, fault: str, says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "pennyweight.evaluate.server.Server.__init__.__kwdefaults__", {"timeout": 20, "retries": 0}
    )
    server.fault, server.after, out = fault, 2, tmp_path / "speed.json"
    done = pennyweight("benchmark", f"BF16={server.url}", *SMALL, "--tokenizer", folder, "--json", out)
    refused(done, says)
    assert done.err.endswith(f"what was measured is in {out}, marked as partial\n")
    kept = results.read(out)
    assert kept["partial"] and [(r["repeats"], r["partial"]) for r in kept["rows"]] == [(1, True)]


def test_server_that_stalls_is_named(
    pennyweight: Callable, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pennyweight.evaluate.server.Server.__init__.__kwdefaults__", {"timeout": 0.3, "retries": 0}
    )
    server.fault = "slow"
    refused(pennyweight("benchmark", f"BF16={server.url}", *SMALL, "--tokenizer", folder), "within 0.3 s")


def test_server_that_is_down_or_unknown_is_named(
    pennyweight: Callable, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pennyweight.evaluate.server.Server.__init__.__kwdefaults__", {"timeout": 5, "retries": 0}
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    refused(pennyweight("benchmark", f"BF16={url}", *SMALL), "the connection failed")
    refused(pennyweight("benchmark", server.url, *SMALL), "does not say which format its model tiny has")
    refused(
        pennyweight("benchmark", f"BF16={server.url}", *SMALL),
        "give the tokenizer's folder (--tokenizer DIR)",
    )
    refused(
        pennyweight("benchmark", f"BF16={server.url}", *SMALL, "--formats", "bf16"), "leave --formats out"
    )


def test_report_is_read_as_it_is() -> None:
    report = guidellm.read(REPORT)
    raw = json.loads(REPORT.read_text())["benchmarks"]
    assert (report.version, report.prefill, report.decode) == ("0.8.1", 26, 13)
    assert [load.kind for load in report.loads] == ["synchronous", "throughput", "rate", "rate"]
    for load, one in zip(report.loads, raw, strict=True):
        metrics = {key: value.get("successful") for key, value in one["metrics"].items()}
        assert load.throughput_qps == metrics["requests_per_second"]["mean"]
        assert load.latency_s == metrics["request_latency"]["median"]
        assert load.inter_token_s == metrics["inter_token_latency_ms"]["median"] / 1000
        assert load.requests == metrics["request_totals"]
    assert [load.rate_qps for load in report.loads] == [None, None, 21.125, 36.0]


def test_report_becomes_rows(pennyweight: Callable, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    done = pennyweight(
        "benchmark", "--guidellm", f"BF16={REPORT}", "--scale", 0.1, "--gpu", "a100", "--json", out
    )
    assert (done.code, done.err) == (0, "")
    result = results.read(out)
    sync, many = result["rows"]
    assert (sync["use_case"], sync["mode"], sync["repeats"]) == ("instruction-following", "sync", 26)
    assert many["throughput_qps"] == 36.0 and [p["throughput_qps"] for p in many["points"]] == [
        6.25,
        20.25,
        33.5,
        36.0,
    ]
    assert many["queries_per_dollar"] == pytest.approx(36 * 3600 / 1.79)  # a share of the study's eight A100s
    assert "queries had 22/13 tokens, asked for were 26/13" in " ".join(result["notes"])
    assert result["versions"]["guidellm"] == "0.8.1" and result["machine"]["name"].startswith(
        "GuideLLM's machine"
    )


def damaged(change: Callable[[Any], None]) -> str:
    raw = json.loads(REPORT.read_text())
    change(raw)
    return json.dumps(raw)


def none_succeeded(raw: Any) -> None:
    raw["benchmarks"][1]["metrics"]["request_totals"]["successful"] = 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is truncated or no JSON"),
        ("{}", "is no report of GuideLLM"),
        (damaged(lambda r: r["metadata"].update(version=1)), "is of version 1 of GuideLLM's reports"),
        (damaged(lambda r: r["benchmarks"][0].pop("metrics")), "is a damaged report of GuideLLM: KeyError('metrics')"),
        (damaged(lambda r: r["benchmarks"].clear()), "has no benchmark"),
        (damaged(none_succeeded), "none of 160 queries"),
        (damaged(lambda r: r["benchmarks"][1].update(duration=0)), "must be above 0"),
        (damaged(lambda r: r["benchmarks"][1].update(duration="4")), "benchmarks[1].seconds is '4'"),
    ],
)  # fmt: skip
def test_damaged_report_is_one_line(pennyweight: Callable, tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    done = pennyweight("benchmark", "--guidellm", f"BF16={path}")
    refused(done, says)
    assert str(path) in done.err


def test_report_of_another_machine_is_refused(pennyweight: Callable, folder: Path) -> None:
    done = pennyweight("benchmark", folder, *SMALL, "--guidellm", f"W8A8-INT={REPORT}")
    refused(done, "measurements of several machines are not compared: BF16 on ")
    refused(
        pennyweight("benchmark", folder, *SMALL, "--guidellm", f"BF16={REPORT}"),
        "both a target and a GuideLLM report",
    )


FAKE = """#!{python}
import json, shutil, sys
arguments = sys.argv[sys.argv.index("run"):]
(out,) = [a.split("path=")[1] for a in arguments if a.startswith("kind=json")]
json.dump(arguments, open({log!r}, "w"))
if {fails}:
    sys.exit("RuntimeError: Backend validation request failed.")
shutil.copy({report!r}, out)
"""


def fake_python(folder: Path, fails: bool = False) -> Path:
    """A program in GuideLLM's python's place: keeps what it was called with and gives the stored report."""
    path = folder / "python"
    log = str(folder / "asked.json")
    path.write_text(FAKE.format(python=sys.executable, log=log, report=str(REPORT), fails=fails))
    path.chmod(0o755)
    return path


def test_guidellm_measures_a_server_under_load(
    pennyweight: Callable, server: FakeServer, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "speed.json"
    done = pennyweight(
        "benchmark", f"W8A8-INT={server.url}", "--mode", "async", "--prefill", 26, "--decode", 13, "--repeats", 1,
        "--rates", 2, "--seconds", 4, "--tokenizer", folder, "--guidellm-python", fake_python(tmp_path), "--json", out,
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    (row,) = results.read(out)["rows"]
    assert (row["throughput_qps"], row["source"], len(row["points"])) == (36.0, "guidellm", 4)
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert (
        f"kind=openai_http,target={server.url.removesuffix('/v1')},model=tiny,request_format=/v1/completions"
        in asked
    )
    assert "kind=sweep,sweep_size=4,max_concurrency=512" in asked and "kind=max_duration,seconds=4" in asked
    assert "kind=synthetic_text,prompt_tokens=26,output_tokens=13" in asked


def test_guidellm_that_fails_or_is_missing_is_named(
    pennyweight: Callable, server: FakeServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(guidellm.PYTHON, raising=False)
    command = ("benchmark", f"BF16={server.url}", "--mode", "async", *SMALL, "--tokenizer", folder)
    refused(pennyweight(*command), "takes GuideLLM in an environment of its own")
    refused(pennyweight(*command, "--guidellm-python", tmp_path / "none"), "does not exist")
    failed = pennyweight(*command, "--guidellm-python", fake_python(tmp_path, fails=True))
    refused(failed, "failed with exit code 1: RuntimeError: Backend validation request failed.")


def test_guidellm_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="was not done after 0 s"):
        guidellm._run(["sleep", "60"], 0.2, tmp_path / "log")
