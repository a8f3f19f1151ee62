# SPDX-License-Identifier: Apache-2.0
"""What a report is made of: results of `evaluate`, `quantize`, `sensitivity` and `benchmark`, as files or from calls.

A file is recognised by what it holds, not by its name, and believed only when it is whole: each key there, of its type,
numbers finite.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pennyweight.errors import EvaluationError
from pennyweight.json_file import check_keys, parse_json
from pennyweight.report.quantization import VERSION as QUANTIZATION

Json = dict[str, Any]
NUMBER = (int, float)
OPTIONAL = (int, float, type(None))
REPORT_KEYS: dict[str, Any] = {
    "recipe": dict, "calibration": (dict, type(None)), "layers": list, "size_before": int, "size_after": int,
    "peak_memory": int, "seconds": NUMBER, "warnings": list,
}  # fmt: skip
LAYER_KEYS: dict[str, Any] = {
    "name": str, "shape": list, "algorithm": str, "output_error": OPTIONAL, "weight_error": NUMBER,
    "damping": OPTIONAL, "tokens": int, "seconds": NUMBER,
}  # fmt: skip
#: Version of the keys of what `pw.sensitivity` gives.
SENSITIVITY = 1
SENSITIVITY_KEYS: dict[str, Any] = {
    "recipe": dict, "by": str, "tokens": int, "perplexity": NUMBER, "kl_all": NUMBER, "perplexity_all": NUMBER,
    "parts": list,
}  # fmt: skip
PART_KEYS: dict[str, Any] = {
    "name": str, "layers": int, "kl": NUMBER, "perplexity": NUMBER, "kl_without": NUMBER,
    "perplexity_without": NUMBER,
}  # fmt: skip
KNOWN = (
    "a report takes what evaluate --out, quantize --json and benchmark --json wrote, and what "
    "pw.sensitivity(...).to_dict() gives"
)


@dataclass(frozen=True)
class Quantization:
    """A run of `quantize`.

    Attributes:
        label: The folder that it wrote, or the scheme where it only was in memory.
        report: As `Report.to_dict`.
    """

    label: str
    report: Json


@dataclass(frozen=True)
class File:
    """Where something came from: its name, what it is, and its SHA-256 (None: it came from memory)."""

    name: str
    kind: str
    sha256: str | None


@dataclass
class Runs:
    """All that a report shows.

    Attributes:
        evaluations: Results as `pennyweight evaluate` writes them, one per model; baselines among them.
        quantizations: By label.
        sensitivities: As `Sensitivity.to_dict`.
        benchmarks: As `pennyweight benchmark` writes them.
        files: In the order given.
    """

    evaluations: list[Json] = field(default_factory=list)
    quantizations: list[Quantization] = field(default_factory=list)
    sensitivities: list[Json] = field(default_factory=list)
    benchmarks: list[Json] = field(default_factory=list)
    files: list[File] = field(default_factory=list)


def collect(sources: Iterable[Any]) -> Runs:
    """Read and check runs.

    Args:
        sources: Files, folders of files (*.json), what `pw.evaluate`, `pw.quantize`, `pw.sensitivity` and
            `pw.benchmark` returned, or their ``to_dict()``.
    Raises:
        EvaluationError, MeasurementError: Something is missing, truncated, of another version, changed by
            hand, or none of these.
    """
    runs = Runs()
    for source in sources:
        if isinstance(source, (str, Path)):
            for path in _files(Path(source)):
                data = _read(path)
                kind = _add(runs, str(path), _parse(path, data))
                runs.files.append(File(str(path), kind, hashlib.sha256(data).hexdigest()))
        else:
            content = source if isinstance(source, dict) else source.to_dict()
            # As it would be read from a file: tuples are lists there.
            kind = _add(runs, f"in memory: {type(source).__name__}", json.loads(json.dumps(content)))
            runs.files.append(File(f"in memory: {type(source).__name__}", kind, None))
    if not runs.files:
        raise EvaluationError(
            "report: nothing to report on; give the JSON files of evaluate, quantize, benchmark or sensitivity"
        )
    runs.evaluations.sort(key=lambda result: result["baseline"] is not None)  # baselines first
    return runs


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = sorted(path.glob("*.json"))
    if not found:
        raise EvaluationError(f"{path}: has no .json file; give a folder that evaluate --out wrote, or files")
    yield from found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(path: Path, data: bytes) -> Json:
    content = parse_json(path, data, EvaluationError)
    if not isinstance(content, dict):
        raise EvaluationError(f"{path}: holds {type(content).__name__}, not the JSON of a run; {KNOWN}")
    return content


def _add(runs: Runs, name: str, content: Json) -> str:
    """Recognise a run by its keys, check it, keep it, and return what it is."""
    from pennyweight.benchmark import results as benchmarks
    from pennyweight.evaluate import results

    if content.get("kind") == benchmarks.KIND:
        runs.benchmarks.append(benchmarks.check(name, content))
        return "benchmark"
    if "suites" in content:
        runs.evaluations.append(results.check(name, content))
        return "evaluate"
    if "models" in content and "baseline" in content:
        _check_version(name, content, "version", 1)
        whole = [*([content["baseline"]] if content["baseline"] else []), *content["models"]]
        runs.evaluations += [results.check(name, one) for one in whole]
        return "evaluate"
    if "report" in content or ("recipe" in content and "layers" in content):
        runs.quantizations.append(_quantization(name, content))
        return "quantize"
    if "parts" in content and "kl_all" in content:
        _check_version(name, content, "version", SENSITIVITY)
        check_keys(name, "sensitivity", content, SENSITIVITY_KEYS, EvaluationError)
        for i, part in enumerate(content["parts"]):
            check_keys(name, f"sensitivity.parts[{i}]", part, PART_KEYS, EvaluationError)
        runs.sensitivities.append(content)
        return "sensitivity"
    raise EvaluationError(f"{name}: is none of the runs that are known here; {KNOWN}")


def _quantization(name: str, content: Json) -> Quantization:
    report = content.get("report", content)
    _check_version(name, content, "version", QUANTIZATION)
    if not isinstance(report, dict):
        raise EvaluationError(f"{name}: report must be an object; run quantize again")
    _check_version(name, report, "version", QUANTIZATION)
    check_keys(name, "report", report, REPORT_KEYS, EvaluationError)
    for i, layer in enumerate(report["layers"]):
        check_keys(name, f"report.layers[{i}]", layer, LAYER_KEYS, EvaluationError)
        for key in ("output_error", "weight_error"):
            if layer[key] is not None and layer[key] < 0:
                raise EvaluationError(
                    f"{name}: report.layers[{i}].{key} is {layer[key]}, an error cannot be negative"
                )
    label = (
        Path(str(content["out"])).name
        if "out" in content
        else str(report["recipe"].get("scheme", "quantized"))
    )
    return Quantization(label, report)


def _check_version(name: str, content: Json, key: str, version: int) -> None:
    if content.get(key) != version:
        raise EvaluationError(
            f"{name}: has version {content.get(key)!r}, this pennyweight reads {version}; make it again with this one"
        )
