# SPDX-License-Identifier: Apache-2.0
"""GuideLLM, which the study measured with: run in an environment of its own, and its reports (JSON) read back.

    python -m venv .guidellm && .guidellm/bin/pip install guidellm==0.8.1
    pennyweight benchmark http://127.0.0.1:8000/v1 --mode async --guidellm-python .guidellm/bin/python ...

Written for 0.8.1, whose reports have version 2.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pennyweight.benchmark.timing import Load
from pennyweight.errors import MeasurementError
from pennyweight.evaluate.server import Server
from pennyweight.json_file import check_keys, read_json
from pennyweight.use_cases import UseCase

#: Version of the reports that are read.
VERSION = 2
#: Environment variable that names its python.
PYTHON = "PENNYWEIGHT_GUIDELLM"
#: Queries under way at most, as GuideLLM's sweep had it in the study.
CONCURRENCY = 512
#: Seconds beyond what was asked for, after which it is taken to hang; it starts slowly.
GRACE = 300.0
KINDS = {"synchronous": "synchronous", "throughput": "throughput", "concurrent": "concurrent"}


@dataclass(frozen=True)
class Report:
    """A GuideLLM report.

    Attributes:
        path: Its file.
        version: Of GuideLLM.
        platform: Of the machine where it ran.
        url, model: The server that was asked, and its model.
        prefill, decode: Tokens of a query.
        loads: Its benchmarks, as they ran.
        notes: Failed queries, answers of another length.
    """

    path: Path
    version: str
    platform: str
    url: str
    model: str
    prefill: int
    decode: int
    loads: list[Load]
    notes: list[str]


def read(path: str | Path) -> Report:
    """Read a report.

    Raises:
        MeasurementError: It is missing, truncated, of another version, none, or no query of it succeeded.
    """
    path = Path(path)
    raw = read_json(path, MeasurementError)
    if not isinstance(raw, dict) or "benchmarks" not in raw or "metadata" not in raw:
        raise MeasurementError(f"{path}: is no report of GuideLLM; give the JSON of its --output kind=json")
    if raw["metadata"].get("version") != VERSION:
        raise MeasurementError(
            f"{path}: is of version {raw['metadata'].get('version')!r} of GuideLLM's reports, this pennyweight reads "
            f"{VERSION}; make it with guidellm 0.8.1"
        )
    try:
        return _report(path, raw)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise MeasurementError(f"{path}: is a damaged report of GuideLLM: {error!r}; make it again") from None


def _report(path: Path, raw: dict[str, Any]) -> Report:
    backend = raw["config"]["spec"]["backend"]
    notes: list[str] = []
    loads = [_load(path, i, one, notes) for i, one in enumerate(raw["benchmarks"])]
    if not loads:
        raise MeasurementError(
            f"{path}: has no benchmark; GuideLLM was stopped before the first one was done"
        )
    metrics = raw["benchmarks"][0]["metrics"]
    prefill, decode = (
        round(metrics[f"{what}_token_count"]["successful"]["median"]) for what in ("prompt", "output")
    )
    data = raw["config"]["spec"]["data"][0]
    asked = (data.get("prompt_tokens") or prefill, data.get("output_tokens") or decode)
    if asked != (prefill, decode):
        notes.append(
            f"{path.name}: queries had {prefill}/{decode} tokens, asked for were {asked[0]}/{asked[1]}"
        )
    return Report(
        path, str(raw["metadata"].get("guidellm_version")), str(raw["metadata"].get("platform")),
        str(backend["target"]), str(backend.get("model") or "model"), *asked, loads, notes,
    )  # fmt: skip


def _load(path: Path, index: int, one: dict[str, Any], notes: list[str]) -> Load:
    metrics, strategy = one["metrics"], one["config"]["strategy"]
    totals = metrics["request_totals"]
    kind = KINDS.get(strategy["type_"], "rate")
    where = f"benchmarks[{index}]"
    if not totals["successful"]:
        raise MeasurementError(
            f"{path}: {where}: none of {totals['total']} queries at the {strategy['type_']} rate succeeded; see "
            "whether the server runs, or give a benchmark more seconds"
        )
    if totals["errored"]:
        notes.append(f"{path.name}: {where}: {totals['errored']} of {totals['total']} queries failed")
    values = {
        "throughput": metrics["requests_per_second"]["successful"]["mean"],
        "latency": metrics["request_latency"]["successful"]["median"],
        "seconds": one["duration"],
    }
    check_keys(path, where, values, dict.fromkeys(values, (int, float)), MeasurementError)
    if not min(values.values()) > 0:
        raise MeasurementError(
            f"{path}: {where}: throughput, latency and duration must be above 0; got {values}"
        )
    ttft, between = (_seconds(metrics, name) for name in ("time_to_first_token_ms", "inter_token_latency_ms"))
    rate = strategy.get("rate") if kind == "rate" else None
    return Load(
        kind,
        rate,
        values["throughput"],
        values["latency"],
        ttft,
        between,
        totals["successful"],
        values["seconds"],
    )


def _seconds(metrics: dict[str, Any], name: str) -> float | None:
    """A time of the queries, median; GuideLLM gives 0 where it saw none."""
    value = metrics[name]["successful"]["median"]
    return value / 1000 if value else None


def find_python(given: str | Path | None) -> Path:
    """Return the python of GuideLLM's environment.

    Raises:
        MeasurementError: None is named, or it is not there.
    """
    name = given or os.environ.get(PYTHON)
    if not name:
        raise MeasurementError(
            "measuring a server under load takes GuideLLM in an environment of its own: python -m venv .guidellm && "
            ".guidellm/bin/pip install guidellm==0.8.1; then give --guidellm-python .guidellm/bin/python "
            f"(or {PYTHON}=...)"
        )
    path = Path(name)
    if not path.is_file():
        raise MeasurementError(
            f"{path}: does not exist; --guidellm-python takes the python that has guidellm"
        )
    return path


def sweep(
    python: Path, server: Server, case: UseCase, rates: int, seconds: float, seed: int, out: Path
) -> Report:
    """Measure a server from one query at a time to as many as it takes, and read the report.

    Args:
        python: Of GuideLLM's environment.
        server: Its tokenizer must be known.
        case: Lengths of the queries.
        rates: Constant rates between the two; 0: the maximum alone.
        seconds: Of each rate.
        seed: Of the prompts.
        out: The report's file.
    Raises:
        MeasurementError: It fails or hangs; the last line of what it said is in the text.
    """
    root = server.url.rstrip("/").removesuffix("/v1")
    folder = getattr(server.tokenizer, "name_or_path", "")
    if not Path(folder).is_dir():
        raise MeasurementError(f"{server.url}: GuideLLM needs its tokenizer's folder; give --tokenizer DIR")
    profile = f"kind=sweep,sweep_size={rates + 2},max_concurrency={CONCURRENCY}"
    if not rates:
        profile = f"kind=throughput,max_concurrency={CONCURRENCY}"
    command = [
        str(python), "-m", "guidellm", "run", "--disable-console-interactive",
        "--backend", f"kind=openai_http,target={root},model={server.model_name},request_format=/v1/completions",
        "--profile", profile, "--constraint", f"kind=max_duration,seconds={seconds:g}",
        "--tokenizer", f"kind=huggingface_auto,model={folder}",
        "--data", f"kind=synthetic_text,prompt_tokens={case.prefill},output_tokens={case.decode}",
        "--seed", f"kind=static,value={seed}", "--output", f"kind=json,path={out}",
    ]  # fmt: skip
    _run(command, (rates + 2) * seconds + GRACE, out.with_suffix(".log"))
    return read(out)


def _run(command: list[str], timeout: float, log: Path) -> None:
    hidden = ("PYTHONPATH", "PYTHONHOME")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        )  # fmt: skip
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise MeasurementError(
                f"guidellm: was not done after {timeout:.0f} s; see whether the server stalls"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise MeasurementError(
            f"guidellm: failed with exit code {code}: {lines[-1] if lines else 'it said nothing':.300}"
        )


def host(url: str) -> str | None:
    """Return the host of a server's URL; None: this machine."""
    name = urlsplit(url).hostname or ""
    return None if name in ("localhost", "127.0.0.1", "::1", "0.0.0.0") else name
