# SPDX-License-Identifier: Apache-2.0
"""Fitting the roofline's three constants to the study's tables, and holding it against rows it was not fitted to.

    python -m pennyweight.recommend.fit          # writes data/roofline.json and prints what it is worth

Errors are of logarithms, so that 0.1 s and 60 s count alike; large ones count less (pseudo-Huber), since some cells of
the tables are odd. Errata are left out. A model and its GPU are withheld from both tables at once: the throughput of a
machine would tell its latency.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from pennyweight import money, study, use_cases
from pennyweight.recommend.gpus import DATA, gpu
from pennyweight.recommend.ranking import TIE
from pennyweight.recommend.roofline import Constants, Roofline
from pennyweight.recommend.shapes import shape
from pennyweight.use_cases import UseCase

#: By mode: table, quantity.
TABLES = {"sync": (5, "latency_s"), "async": (6, "throughput_qps")}
START = Constants(bandwidth=0.8, peak=0.5, overhead=1e-4)
#: Errors of the logarithm beyond this count less than by their square.
LARGE = 0.3


@dataclass(frozen=True)
class Cell:
    """A printed latency or throughput.

    Attributes:
        mode: "sync" or "async".
        held: Model and GPU, what is withheld together.
        roofline: What it is a measurement of.
        case: Of which use case.
        seconds: Per query, printed.
        odd: Whether it is an erratum.
    """

    mode: str
    held: tuple[str, str]
    roofline: Roofline
    case: UseCase
    seconds: float
    odd: bool

    def predicted(self, constants: Constants) -> float:
        """Return seconds per query by the model."""
        model = replace(self.roofline, constants=constants)
        return model.seconds(self.case, 1 if self.mode == "sync" else max(1, model.in_flight(self.case)))

    @property
    def group(self) -> tuple[str, tuple[str, str], str]:
        """Cells whose formats are compared."""
        return (self.mode, self.held, self.case.name)


@dataclass(frozen=True)
class Held:
    """A cell beside what the model says without its row."""

    cell: Cell
    seconds: float

    @property
    def factor(self) -> float:
        """By what factor the model is off, 1 or more."""
        return math.exp(abs(math.log(self.seconds / self.cell.seconds)))


def cells() -> list[Cell]:
    """Return every latency and throughput of the study's Tables 5 and 6."""
    return [cell for mode in TABLES for cell in _cells(mode)]


def fit(known: Sequence[Cell]) -> Constants:
    """Return the constants that fit the cells best, by Gauss-Newton steps with weights against large errors."""
    good = [cell for cell in known if not cell.odd]
    logs = np.log(list(asdict(START).values()))

    def errors(at: np.ndarray) -> np.ndarray:
        constants = Constants(*np.exp(at).tolist())
        return np.array([math.log(cell.predicted(constants) / cell.seconds) for cell in good])

    for _ in range(60):
        error = errors(logs)
        slopes = np.stack([(errors(logs + step) - error) / 1e-4 for step in 1e-4 * np.eye(len(logs))], axis=1)
        weight = (1 + (error / LARGE) ** 2) ** -0.25
        step = np.linalg.lstsq(slopes * weight[:, None], -error * weight, rcond=None)[0]
        logs = logs + 0.5 * step
        if np.abs(step).max() < 1e-7:
            break
    return Constants(*np.exp(logs).tolist())


def withheld() -> list[Held]:
    """Return every cell with the model's answer, fitted to the other models and GPUs alone."""
    known = cells()
    result = []
    for held in dict.fromkeys(cell.held for cell in known):
        constants = fit([cell for cell in known if cell.held != held])
        result += [Held(cell, cell.predicted(constants)) for cell in known if cell.held == held]
    return result


def sync_orders(found: Sequence[Held]) -> tuple[int, int]:
    """Return in how many use cases of rows the order of all formats by cost is right, and of how many."""
    right = total = 0
    for group in _groups(found, "sync"):
        total += 1
        right += sorted(group, key=lambda h: _cost(h, h.cell.seconds)) == sorted(
            group, key=lambda h: _cost(h, h.seconds)
        )
    return right, total


def async_pairs(found: Sequence[Held]) -> tuple[int, int]:
    """Return how many pairs of formats are in the right order by cost, and of how many; no ties, no errata."""
    right = total = 0
    for group in _groups(found, "async"):
        for one, other in itertools.combinations([held for held in group if not held.cell.odd], 2):
            true = _cost(one, one.cell.seconds) / _cost(other, other.cell.seconds)
            if abs(true - 1) < TIE:
                continue
            total += 1
            right += (true < 1) == (_cost(one, one.seconds) < _cost(other, other.seconds))
    return right, total


def main() -> None:
    """Fit, write data/roofline.json, print."""
    from pennyweight.recommend import roofline

    found = withheld()
    result = {
        "schema": 1,
        "remarks": [
            "Written by python -m pennyweight.recommend.fit. errors: median and largest factor between the model and "
            "the study's cell, order: right, of how many; both with the cell's model and GPU withheld from the fit."
        ],
        "constants": {name: float(f"{value:.4g}") for name, value in asdict(fit(cells())).items()},
        "errors": {mode: [round(value, 3) for value in errors(found, mode)] for mode in TABLES},
        "order": {"sync": sync_orders(found), "async": async_pairs(found)},
    }
    (DATA / "roofline.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    roofline.fitted.cache_clear()
    print(roofline.fitted().constants, roofline.fitted(), sep="\n")


def errors(found: Sequence[Held], mode: str) -> tuple[float, float]:
    """Return the median and the largest factor by which the model is off."""
    factors = sorted(held.factor for held in found if held.cell.mode == mode and not held.cell.odd)
    return factors[len(factors) // 2], factors[-1]


def _cells(mode: str) -> Iterator[Cell]:
    number, quantity = TABLES[mode]
    table = study.table(number)
    for row in table.rows:
        model = Roofline(shape(row.model), gpu(row.keys["gpu"]), int(row.keys["gpus"]), row.scheme, START)
        for case in use_cases.STUDY:
            column = f"{case.name}.{quantity}"
            printed = row.cells[column]
            assert printed is not None  # no cell of these tables is empty
            seconds = printed.value if mode == "sync" else 1 / printed.value
            odd = bool(table.erratum(row, column))
            yield Cell(mode, (row.model, row.keys["gpu"]), model, case, seconds, odd)


def _groups(found: Sequence[Held], mode: str) -> list[list[Held]]:
    groups: dict[object, list[Held]] = {}
    for held in found:
        if held.cell.mode == mode:
            groups.setdefault(held.cell.group, []).append(held)
    return list(groups.values())


def _cost(held: Held, seconds: float) -> float:
    """USD of a query at the study's prices."""
    model = held.cell.roofline
    return seconds * money.study_prices().per_hour(model.gpu.name, model.gpus) / 3600


if __name__ == "__main__":
    main()
