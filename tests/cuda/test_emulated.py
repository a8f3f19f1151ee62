# SPDX-License-Identifier: Apache-2.0
"""Every kernel for cards, emulated: against the reference, under schedules, under sanitizers."""

import pytest
from emulated_build import Build, run

ARCHITECTURES = ["80", "86", "89", "90"]


@pytest.mark.parametrize("compute", ARCHITECTURES)
def test_kernels_match_the_reference(emulated: Build, compute: str) -> None:
    """In order, in reverse, and two shuffled schedules, over awkward shapes."""
    result = run(emulated("none") / "cuda_tests", "--compute", compute, "--seeds", "0", "3")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("compute", ["80", "90"])
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_kernels_are_clean_under_sanitizers(emulated: Build, kind: str, compute: str) -> None:
    """No access out of bounds, nothing undefined; no race at any schedule."""
    result = run(emulated(kind) / "cuda_tests", "--small", "--compute", compute, "--seeds", "2", "3")
    assert result.returncode == 0, result.stdout
