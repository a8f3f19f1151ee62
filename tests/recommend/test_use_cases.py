# SPDX-License-Identifier: Apache-2.0
"""Use cases: the study's lengths, scaling, names."""

from __future__ import annotations

import pytest

from pennyweight import use_cases
from pennyweight.errors import MeasurementError
from pennyweight.use_cases import UseCase


@pytest.mark.parametrize(
    ("name", "prefill", "decode"),
    [
        ("code-completion", 256, 1024),
        ("docstring-generation", 768, 128),
        ("code-fixing", 1024, 1024),
        ("rag", 1024, 128),
        ("instruction-following", 256, 128),
        ("multi-turn-chat", 512, 256),
        ("summarization", 4096, 512),
        ("large-rag", 10240, 1536),
    ],
)
def test_lengths_are_those_of_the_source(name: str, prefill: int, decode: int) -> None:
    case = use_cases.use_case(name)
    assert (case.prefill, case.decode, case.tokens) == (prefill, decode, prefill + decode)
    assert ("2411.02355" in case.source) == (name != "large-rag") == (case in use_cases.STUDY)


def test_scaled_rounds_keeps_a_token_and_says_by_what() -> None:
    small = use_cases.use_case("rag").scaled(0.1)
    assert (small.name, small.prefill, small.decode, small.scale) == ("rag", 102, 13, 0.1)
    assert UseCase("short", 3, 1).scaled(0.01).tokens == 2
    assert use_cases.use_case("rag").scaled(0.5).scaled(0.5).scale == 0.25
    assert use_cases.use_case("rag").scaled(1) == use_cases.use_case("rag")


def test_name_is_found_as_people_write_it() -> None:
    assert use_cases.use_case(" Multi_turn chat").name == "multi-turn-chat"


def test_unknown_name_has_the_nearest() -> None:
    with pytest.raises(
        MeasurementError, match="use case 'sumarize' is not known; did you mean summarization"
    ):
        use_cases.use_case("sumarize")
    with pytest.raises(
        MeasurementError, match="'qqq' is not known; All: code-completion, docstring-generation"
    ):
        use_cases.use_case("qqq")


@pytest.mark.parametrize("factor", [0, -1, 1.5, float("nan"), "half", True])
def test_scale_that_is_none_is_refused(factor: object) -> None:
    with pytest.raises(MeasurementError, match="scale must be above 0 and at most 1"):
        use_cases.use_case("rag").scaled(factor)  # type: ignore[arg-type]


@pytest.mark.parametrize(("prefill", "decode"), [(0, 1), (1, -1), ("long", 1), (1.5, 1), (True, 1)])
def test_length_that_is_none_is_refused(prefill: object, decode: object) -> None:
    with pytest.raises(MeasurementError, match="must be a whole number of tokens, 1 or more; got"):
        UseCase("mine", prefill, decode)  # type: ignore[arg-type]
