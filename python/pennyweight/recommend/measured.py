# SPDX-License-Identifier: Apache-2.0
"""Offers of the user's own measurements: files of `pennyweight benchmark`, of one model on one kind of machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pennyweight.errors import EvaluationError, MeasurementError
from pennyweight.json_file import read_json
from pennyweight.money import Prices
from pennyweight.recommend import shapes
from pennyweight.recommend.gpus import Gpu
from pennyweight.recommend.offers import Offer, Offers, Speed
from pennyweight.recommend.shapes import Shape
from pennyweight.recommend.workload import Workload

#: By how much the parameters of two files of one model may differ: formats store a few more.
SAME_SIZE = 0.05
#: What a machine is called whose GPU is not known.
MACHINE = "machine"
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Measurements:
    """Files that belong together.

    Attributes:
        benchmarks: Results of `pennyweight benchmark` by file.
        evaluations: Results of `pennyweight evaluate`.
    """

    benchmarks: Mapping[str, Json]
    evaluations: Sequence[Json]

    @property
    def machine(self) -> Json | None:
        """The machine of the benchmarks; None: there are none."""
        return next((result["machine"] for result in self.benchmarks.values()), None)

    @property
    def gpu(self) -> str | None:
        """Its name as prices have it; "cpu": a machine without; None: not known."""
        return None if self.machine is None else self.machine["gpu"]

    @property
    def model(self) -> str | None:
        """The name of the benchmarks' model."""
        return next((r["model"]["name"] for r in self.benchmarks.values() if r["model"]), None)

    @property
    def shape(self) -> Shape | None:
        """The shape of the benchmarks' model; None: they do not say."""
        return next((s for file, r in self.benchmarks.items() if (s := _shape(file, r)) is not None), None)

    @property
    def source(self) -> str | None:
        """The folder of the unquantized model that was measured; None: it was none, or is not known."""
        targets = [
            t for result in self.benchmarks.values() for t in result["targets"] if t["kind"] == "folder"
        ]
        return next((t.get("source") for t in targets if t["baseline"]), None)

    @property
    def is_random(self) -> bool:
        """Whether a model with random weights was measured: there is none to quantize."""
        return any(t["kind"] == "random" for result in self.benchmarks.values() for t in result["targets"])

    @property
    def prices(self) -> Prices | None:
        """The price of its machine that a benchmark was given; None: none."""
        paid = [
            (result, row)
            for result in self.benchmarks.values()
            for row in result["rows"]
            if result["prices"] and row["usd_per_hour"]
        ]
        if not paid:
            return None
        machine = {row["gpus"]: row["usd_per_hour"] for _, row in paid}
        last = paid[-1][0]["prices"]
        return Prices({self.gpu or MACHINE: machine}, f"{last['source']} (as benchmarked)", last["date"])


def read(paths: Sequence[str | Path]) -> Measurements:
    """Read files of `pennyweight benchmark` and `pennyweight evaluate`, in any order, or folders of them.

    Raises:
        MeasurementError: A file is missing, truncated, of another version or neither; or benchmarks are of more than
            one machine, model or scale.
    """
    if not paths:
        return Measurements({}, [])
    from pennyweight.benchmark import (
        results as benchmarks,  # these import torch: not for advice without measurements
    )

    found: dict[str, Json] = {}
    evaluated: list[Json] = []
    for path in _files(paths):
        raw = read_json(path, MeasurementError)
        if isinstance(raw, dict) and raw.get("kind") == benchmarks.KIND:
            found[str(path)] = benchmarks.check(path, raw)
        elif isinstance(raw, dict) and "suites" in raw:
            evaluated.append(_evaluation(path, raw))
        else:
            raise MeasurementError(f"{path}: is no result of pennyweight benchmark or pennyweight evaluate")
    result = Measurements(found, evaluated)
    _same_machine(result)
    _same_model(result)
    return result


def offers(given: Measurements, mode: str, workload: Workload) -> Offers | None:
    """Return what was measured of this workload; None where no format has all of its use cases in this mode."""
    rows: dict[tuple[str, int], dict[str, Json]] = {}
    notes: list[str] = []
    for file, result in given.benchmarks.items():
        notes += [f"{file}: {note}" for note in result["notes"]]
        for row in result["rows"]:
            if row["mode"] == mode:
                cases = rows.setdefault((row["format"], row["gpus"]), {})
                if row["use_case"] in cases:
                    notes.append(f"{row['format']}, {row['use_case']}: measured twice, {file} counts.")
                cases[row["use_case"]] = row
    wanted = [case.name for case, _ in workload.cases]
    found = []
    for (format_, gpus), cases in rows.items():
        missing = [name for name in wanted if name not in cases]
        if missing:
            notes.append(f"{format_}: not measured on {', '.join(missing)}, and so not ranked.")
            continue
        found.append(Offer(format_, gpus, {name: _speed(cases[name]) for name in wanted}))
        notes += [
            f"{format_}, {name}: its run was stopped early." for name in wanted if cases[name]["partial"]
        ]
    if not found:
        return None
    lengths = _lengths(rows, workload)
    machine = given.machine
    assert machine is not None  # rows come with one
    source = f"measured on {machine['name']} with {', '.join(given.benchmarks)}"
    return Offers(source, found, [*lengths, *dict.fromkeys(notes)])


def check(given: Measurements, model: Shape | None, gpu: Gpu | None, gpu_name: str | None) -> None:
    """Hold measurements against the model and GPU that advice is asked for.

    Raises:
        MeasurementError: They are of another model or another machine.
    """
    machine = given.machine
    if machine is not None and gpu_name is not None and machine["gpu"] is not None:
        asked = gpu.name if gpu is not None else gpu_name
        if machine["gpu"] != asked:
            raise MeasurementError(
                f"the measurements are of another machine: {machine['name']} ({machine['gpu']}), advice is asked for "
                f"{asked}; leave --gpu out, or leave the measurements out"
            )
    if model is not None and given.shape is not None and not model.same(given.shape):
        raise MeasurementError(
            f"the measurements are of another model: {given.model} ({given.shape.parameters / 1e9:.3g} B parameters), "
            f"advice is asked for {model.name} ({model.parameters / 1e9:.3g} B); leave --model out, or measure that"
        )
    size = model or given.shape
    for result in given.evaluations:
        theirs = result["model"].get("parameters") or (result["baseline"] or {}).get("parameters")
        if size is not None and theirs and abs(theirs / size.parameters - 1) > SAME_SIZE:
            raise MeasurementError(
                f"the evaluation of {result['model'].get('name')} is of another model: {theirs / 1e9:.3g} B "
                f"parameters, {size.name} has {size.parameters / 1e9:.3g} B"
            )


def _speed(row: Json) -> Speed:
    if row["mode"] == "sync":
        return Speed(row["latency_s"], row["latency_s"])
    points = sorted((point["throughput_qps"], point["latency_s"]) for point in row["points"])
    top = (row["throughput_qps"], row["latency_s"])
    curve = [point for point in points if point[0] < top[0]]
    return Speed(1 / row["throughput_qps"], row["latency_s"], tuple([*curve, top]) if curve else ())


def _files(paths: Sequence[str | Path]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise MeasurementError(f"{path}: has no .json files")
        found += inside
    return found


def _shape(file: str, result: Json) -> Shape | None:
    """The shape of a benchmark's model; None where its file has not all of it."""
    model = result["model"]
    if not model or not set(shapes.WORDS) <= set(model.get("config") or ()):
        return None
    return shapes.from_config(model["config"], model["name"], file)


def _evaluation(path: Path, raw: Json) -> Json:
    from pennyweight.evaluate import results as evaluations

    try:
        return evaluations.check(path, raw)
    except EvaluationError as error:
        raise MeasurementError(str(error)) from error


def _same_machine(given: Measurements) -> None:
    machines = {file: (r["machine"]["name"], r["machine"]["gpu"]) for file, r in given.benchmarks.items()}
    if len(set(machines.values())) > 1:
        text = "; ".join(f"{file}: {name}" for file, (name, _) in machines.items())
        raise MeasurementError(
            f"measurements of different machines cannot be compared ({text}); give those of one machine"
        )


def _same_model(given: Measurements) -> None:
    models = {file: shape for file, r in given.benchmarks.items() if (shape := _shape(file, r)) is not None}
    first = next(iter(models.values()), None)
    if first is not None and not all(first.same(shape) for shape in models.values()):
        text = "; ".join(f"{file}: {m.parameters / 1e9:.3g} B parameters" for file, m in models.items())
        raise MeasurementError(f"measurements of different models cannot be compared ({text})")


def _lengths(rows: Mapping[tuple[str, int], Mapping[str, Json]], workload: Workload) -> list[str]:
    """Notes on use cases that were measured with other lengths than they have; MeasurementError where rows differ."""
    notes = []
    for case, _ in workload.cases:
        found = {
            (cases[case.name]["prefill_tokens"], cases[case.name]["decode_tokens"])
            for cases in rows.values()
            if case.name in cases
        }
        if len(found) > 1:
            text = " and ".join(f"{prefill}/{decode}" for prefill, decode in sorted(found))
            raise MeasurementError(
                f"{case.name} was measured with different lengths: {text} tokens; measure alike"
            )
        ((prefill, decode),) = found
        if (prefill, decode) != (case.prefill, case.decode):
            notes.append(
                f"{case.name} was measured with {prefill} tokens in and {decode} out, "
                f"not {case.prefill} and {case.decode}."
            )
    return notes
