# SPDX-License-Identifier: Apache-2.0
"""A run: formats take turns, use case by use case; whatever stops it, what is timed by then is kept.

for each use case
  sync    repeats ×   every format answers the same prompt, the order turned round each time
  async   repeats ×   every format answers all prompts at once: the maximum throughput
          one by one, then at `rates` constant rates between that and the maximum, every format at each
          a server: GuideLLM's sweep instead, one format after the other
  the file is written, marked as partial until the last one is done
"""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pennyweight.benchmark import guidellm, in_process, machine, prompts, results, rows
from pennyweight.benchmark.rows import Place
from pennyweight.benchmark.sides import Side, shape_of
from pennyweight.benchmark.timing import Load, Query
from pennyweight.errors import MeasurementError, PennyweightError
from pennyweight.evaluate.server import Server
from pennyweight.use_cases import UseCase

#: Distributions whose versions go into a result, where they are installed.
VERSIONS = ("torch", "transformers", "numpy", "openai")
#: Tokens of the answer that warms a format up on a CPU.
WARM_TOKENS = 2
Json = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        modes: "sync", "async".
        cases: Use cases, scaled.
        scale: By what.
        repeats: Queries of each format (sync), and times that the maximum throughput is measured.
        requests: Queries at each point of a sweep in this process.
        rates: Constant rates between one query at a time and the maximum; 0: the maximum alone.
        seconds: Of each rate of a server's sweep.
        seed: Of prompts and random weights.
        fuse: Whether quantized models run fused.
        guidellm: Python of its environment, for servers.
    """

    modes: tuple[str, ...]
    cases: tuple[UseCase, ...]
    scale: float
    repeats: int
    requests: int
    rates: int
    seconds: float
    seed: int
    fuse: bool
    guidellm: Path | None = None


@dataclass
class Samples:
    """What was timed of one format at one use case."""

    queries: list[Query] = field(default_factory=list)
    most: list[Load] = field(default_factory=list)
    curve: list[Load] = field(default_factory=list)
    loaded: bool = False  # whether the sweep is done


class Runner:
    """Measures and keeps what it found.

    Args:
        sides: Formats, opened.
        reports: GuideLLM's, each with its format.
        plan: What to measure.
        place: Where it runs and what that costs.
        head: `machine` and `prices` of the result.
        out: Its file, or None.
        progress: Show a bar.
    """

    def __init__(
        self,
        sides: Sequence[Side],
        reports: Sequence[tuple[str, guidellm.Report]],
        plan: Plan,
        place: Place,
        head: Json,
        out: Path | None,
        progress: bool,
    ) -> None:
        self.sides, self.reports, self.plan, self.place = sides, reports, plan, place
        self._head, self._out, self._progress = head, out, progress
        self._samples = {(side.format, case.name): Samples() for side in sides for case in plan.cases}
        self._notes: list[str] = []
        self._begin = time.perf_counter()

    def run(self) -> Json:
        """Measure everything and return the result; what stops it leaves a partial one in the file."""
        from tqdm.auto import tqdm

        vocabulary = self.sides[0].vocabulary if self.sides else (0, [])
        try:
            with tqdm(total=self._steps(), disable=not self._progress, leave=False) as bar:
                for case in self.plan.cases if self.sides else ():
                    drawn = prompts.draw(
                        *vocabulary, max(self.plan.repeats, self.plan.requests), case.prefill, self.plan.seed
                    )
                    for doing in self._measure(case, drawn):
                        bar.set_description(doing)
                        bar.update()
                    if self._out is not None and case is not self.plan.cases[-1]:
                        results.write(self._out, self._result(partial=True))
        except BaseException as error:
            self._keep(error)
            raise
        result = results.sealed(self._result(partial=False))
        if self._out is not None:
            results.write(self._out, result)
        return result

    def _keep(self, error: BaseException) -> None:
        why = " ".join(str(error).split()) or type(error).__name__
        self._notes.append(f"partial: stopped by: {why}")
        result = self._result(partial=True)
        if self._out is None or not result["rows"]:
            return
        results.write(self._out, result)
        if isinstance(error, PennyweightError):
            error.args = (f"{error}; what was measured is in {self._out}, marked as partial",)
        elif hasattr(error, "kept"):
            error.kept = f"what was measured is in {self._out}, marked as partial"

    def _measure(self, case: UseCase, drawn: list[list[int]]) -> Iterator[str]:
        """Time all formats at one use case; yields what it did."""
        if "sync" in self.plan.modes:
            for turn in range(self.plan.repeats + 1):  # the first warms up
                for side in self._order(turn):
                    self._query(side, case, drawn[max(0, turn - 1)], warm=turn == 0)
                    yield f"{side.format}: {case.name}, sync"
        if "async" not in self.plan.modes:
            return
        local = [side for side in self.sides if not isinstance(side.target, Server)]
        for turn in range(self.plan.repeats):
            for side in self._order(turn):
                if side in local:
                    loaded = in_process.load(
                        side.model, drawn[: self.plan.requests], case.decode, "throughput"
                    )
                    self._of(side, case).most.append(loaded)
                    yield f"{side.format}: {case.name}, throughput"
        yield from self._curve(local, case, drawn[: self.plan.requests])
        for side in self.sides:
            if isinstance(side.target, Server):
                self._sweep(side, side.target, case)
                yield f"{side.format}: {case.name}, sweep"

    def _query(self, side: Side, case: UseCase, prompt: list[int], warm: bool) -> None:
        if isinstance(side.target, Server):
            tokens = min(case.decode, WARM_TOKENS) if warm else case.decode
            came = side.target.stream(prompt, tokens)
            between = (came[-2] - came[0]) / (tokens - 1) if tokens > 1 else None
            query = Query(came[-1], came[0], between)
        else:
            # On a card the warm-up is a whole query: graphs are captured for the cache's size.
            short = warm and side.model.device.type == "cpu"
            query = in_process.query(
                side.model, prompt, min(case.decode, WARM_TOKENS) if short else case.decode
            )
        if not warm:
            self._of(side, case).queries.append(query)

    def _curve(self, local: Sequence[Side], case: UseCase, drawn: list[list[int]]) -> Iterator[str]:
        """Measure what lies between one query at a time and the maximum."""
        if not self.plan.rates:
            return
        single = drawn[: max(2, len(drawn) // 4)]
        for side in local:
            self._of(side, case).curve.append(in_process.load(side.model, single, case.decode, "synchronous"))
            yield f"{side.format}: {case.name}, one by one"
        for step in range(1, self.plan.rates + 1):
            for side in local:
                found = self._of(side, case)
                low = found.curve[0].throughput_qps
                high = max(load.throughput_qps for load in found.most)
                rate = low + (high - low) * step / (self.plan.rates + 1)
                found.curve.append(in_process.load(side.model, drawn, case.decode, "rate", rate))
                yield f"{side.format}: {case.name}, {rate:.3g} queries/s"
        for side in local:
            self._of(side, case).loaded = True

    def _sweep(self, side: Side, server: Server, case: UseCase) -> None:
        assert self.plan.guidellm is not None
        found = self._of(side, case)
        for turn in range(self.plan.repeats):
            with tempfile.TemporaryDirectory() as folder:
                report = guidellm.sweep(
                    self.plan.guidellm, server, case, self.plan.rates if turn == 0 else 0, self.plan.seconds,
                    self.plan.seed + turn, Path(folder) / "report.json",
                )  # fmt: skip
            most, curve = _split(report)
            found.most.append(most)
            found.curve += curve
            self._notes += report.notes
        found.loaded = True

    def _result(self, partial: bool) -> Json:
        plan, about = self.plan, [side.about for side in self.sides]
        local = next((side for side in self.sides if not isinstance(side.target, Server)), None)
        model = None
        if self.sides:
            base = next((side for side in self.sides if side.about["baseline"]), self.sides[0])
            model = {
                "name": base.about["name"], "parameters": base.about.get("parameters"),
                "config": None if local is None else shape_of(local.model.config),
            }  # fmt: skip
        settings = asdict(plan) | {"use_cases": [case.name for case in plan.cases]}
        settings = {key: value for key, value in settings.items() if key not in ("cases", "seed", "guidellm")}
        notes = [note for side in self.sides for note in side.notes] + self._notes
        return {
            "pennyweight": importlib.metadata.version("pennyweight"), "versions": self._versions(),
            "model": model, "seed": plan.seed, "settings": settings, **self._head,
            "targets": about + [_reported(form, report) for form, report in self.reports],
            "rows": [*self._rows(), *self._reported_rows()],
            "notes": list(dict.fromkeys([*notes, *(n for _, report in self.reports for n in report.notes)])),
            "partial": partial, "seconds": time.perf_counter() - self._begin,
        }  # fmt: skip

    def _rows(self) -> Iterator[Json]:
        for case in self.plan.cases:
            for side in self.sides:
                found = self._of(side, case)
                served = isinstance(side.target, Server)
                if found.queries:
                    partial = len(found.queries) < self.plan.repeats
                    source = "server" if served else "in process"
                    yield rows.sync_row(side.format, case, found.queries, self.place, source, partial)
                if found.most:
                    partial = len(found.most) < self.plan.repeats or (
                        self.plan.rates > 0 and not found.loaded
                    )
                    source = "guidellm" if served else "in process"
                    yield rows.async_row(
                        side.format, case, found.most, found.curve, self.place, source, partial
                    )

    def _reported_rows(self) -> Iterator[Json]:
        for form, report in self.reports:
            case = rows.named(report.prefill, report.decode, self.plan.scale)
            single = next((load for load in report.loads if load.kind == "synchronous"), None)
            if single is not None:
                yield rows.point_row(form, case, single, self.place, "guidellm")
            if len(report.loads) > 1 or single is None:
                most, curve = _split(report)
                yield rows.async_row(form, case, [most], curve, self.place, "guidellm", False)

    def _order(self, turn: int) -> Sequence[Side]:
        return self.sides if turn % 2 == 0 else self.sides[::-1]

    def _of(self, side: Side, case: UseCase) -> Samples:
        return self._samples[side.format, case.name]

    def _steps(self) -> int:
        """How many steps the bar has."""
        servers = sum(isinstance(side.target, Server) for side in self.sides)
        local = len(self.sides) - servers
        loads = self.plan.repeats + (self.plan.rates + 1 if self.plan.rates else 0)
        sync = len(self.sides) * (self.plan.repeats + 1) * ("sync" in self.plan.modes)
        return len(self.plan.cases) * (sync + (local * loads + servers) * ("async" in self.plan.modes))

    def _versions(self) -> dict[str, str]:
        found = {"python": platform.python_version()}
        for name in VERSIONS:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        for _, report in self.reports:
            found["guidellm"] = report.version
        return found


def _split(report: guidellm.Report) -> tuple[Load, list[Load]]:
    """Return the benchmark of the highest throughput, and the others."""
    most = max(report.loads, key=lambda load: load.throughput_qps)
    return most, [load for load in report.loads if load is not most]


def _reported(form: str, report: guidellm.Report) -> Json:
    return {
        "format": form, "name": Path(report.model).name, "kind": "guidellm", "source": str(report.path),
        "scheme": None, "dtype": None, "device": None, "bytes": None, "hash": None, "model": report.model,
        "url": report.url, "platform": report.platform, "baseline": form in ("BF16", "FP16", "FP32"),
    }  # fmt: skip


def machine_of(sides: Sequence[Side], reports: Sequence[tuple[str, guidellm.Report]]) -> Json:
    """Return the one machine that everything ran on.

    Raises:
        MeasurementError: There are several: rows of one file are compared with each other.
    """
    here = machine.describe()
    found: dict[str, list[str]] = {}
    for side in sides:
        away = guidellm.host(side.target.url) if isinstance(side.target, Server) else None
        found.setdefault(here["name"] if away is None else f"server {away}", []).append(side.format)
    for form, report in reports:
        away = guidellm.host(report.url)
        place = f"server {away}" if away else f"GuideLLM's machine ({report.platform})"
        found.setdefault(place, []).append(form)
    if len(found) > 1:
        told = "; ".join(f"{', '.join(formats)} on {name}" for name, formats in found.items())
        raise MeasurementError(
            f"benchmark: measurements of several machines are not compared: {told}; measure each machine in a run of "
            "its own"
        )
    (name,) = found
    if name == here["name"]:
        return here
    unknown = {"cpu": None, "cores": None, "threads": None, "memory_bytes": None, "cards": None}
    return {**unknown, "name": name}
