# SPDX-License-Identifier: Apache-2.0
"""Scheme names, aliases, and what cannot be a scheme."""

from __future__ import annotations

import pytest

import pennyweight as pw
from pennyweight.schemes import names


@pytest.mark.parametrize(
    ("name", "want"),
    [("W8A8-FP", "W8A8-FP"), ("fp8_dynamic", "W8A8-FP"), ("w8a8", "W8A8-INT"), ("W4a16", "W4A16-INT")],
)
def test_scheme_takes_names_and_aliases(name: str, want: str) -> None:
    assert pw.scheme(name).name == want


def test_every_name_is_its_own_scheme() -> None:
    assert [pw.scheme(name).name for name in names()] == names() == ["W8A8-FP", "W8A8-INT", "W4A16-INT"]


def test_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(pw.UnsupportedError, match="'W4A17' is not known; did you mean W4A16"):
        pw.scheme("W4A17")
    with pytest.raises(pw.UnsupportedError, match="All: W8A8-FP"):
        pw.scheme("???")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("x", "int8", 8, 128), "8-bit weights have one scale per channel"),
        (("x", "fp8", 8, -1, False), "no zero points"),
        (("x", "int4", 4, 48), "group_size must be"),
        (("x", "int4", 8, 128), "weights are"),
    ],
)
def test_scheme_refuses_what_no_kernel_stores(args: tuple[object, ...], text: str) -> None:
    with pytest.raises(pw.UnsupportedError, match=text):
        pw.Scheme(*args)  # type: ignore[arg-type]
