# SPDX-License-Identifier: Apache-2.0
"""What will be asked of the model: one use case, several that count alike, or several with their shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pennyweight import use_cases
from pennyweight.errors import MeasurementError
from pennyweight.use_cases import UseCase


@dataclass(frozen=True)
class Workload:
    """Use cases and their shares of all queries.

    Attributes:
        cases: Use case and share; shares add up to 1.
        alike: Whether no shares were given. Formats are then compared by the mean over use cases of how many times
            cheaper than BF16 they are, as the study does; with shares, by the cost of the mix.
    """

    cases: tuple[tuple[UseCase, float], ...]
    alike: bool = False

    @property
    def longest(self) -> UseCase:
        """The use case whose keys and values take the most memory."""
        return max((case for case, _ in self.cases), key=lambda case: case.tokens)

    def __str__(self) -> str:
        if len(self.cases) == 1:
            return _shown(self.cases[0][0])
        if self.alike:
            return f"{', '.join(case.name for case, _ in self.cases)}, each alike"
        return ", ".join(f"{100 * share:.3g} % {case.name}" for case, share in self.cases)


def workload(
    names: Sequence[str] = ("all",), *, prefill: int | None = None, decode: int | None = None
) -> Workload:
    """Return a workload.

    Args:
        names: "rag"; "all", the study's seven; several; or with shares, "rag=0.7" and "summarization=0.3".
        prefill, decode: Tokens of prompt and answer, instead of names; a benchmark of these calls it "2000-300", too.
    Raises:
        MeasurementError: An unknown use case, a share that is none, shares that do not add up to 1.
    """
    if prefill is not None or decode is not None:
        if prefill is None or decode is None or tuple(names) not in ((), ("all",)):
            raise MeasurementError(
                "give prefill and decode together and without a use case, or a use case alone"
            )
        return Workload(((UseCase(f"{prefill}-{decode}", prefill, decode), 1.0),))
    parts = [part.strip() for name in names for part in name.split(",") if part.strip()]
    if parts in (["all"], []):
        return _alike(list(use_cases.STUDY))
    split = [part.partition("=") for part in parts]
    cases = [use_cases.use_case(name) for name, _, _ in split]
    twice = [case.name for i, case in enumerate(cases) if case in cases[:i]]
    if twice:
        raise MeasurementError(f"use case {twice[0]} is given twice; give each once, with its share")
    if not any(sign for _, sign, _ in split):
        return _alike(cases)
    shares = [_share(name, text) for name, _, text in split]
    if not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise MeasurementError(f"shares must add up to 1; {', '.join(parts)} add up to {sum(shares):g}")
    return Workload(tuple(zip(cases, shares, strict=True)))


def _alike(cases: list[UseCase]) -> Workload:
    return Workload(tuple((case, 1 / len(cases)) for case in cases), alike=len(cases) > 1)


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise MeasurementError(f"use case {name}: its share must be above 0 and at most 1; got '{text}'")
    return share


def _shown(case: UseCase) -> str:
    return f"{case.name} ({case.prefill} tokens in, {case.decode} out)"
