# SPDX-License-Identifier: Apache-2.0
"""The kernels for cards, without a card: all of it is `make cuda-gate`."""

import functools
from pathlib import Path

import pytest
from emulated_build import Build, build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("gate")


@pytest.fixture(scope="session")
def emulated() -> Build:
    """The folder of the emulated build of a kind, each built once."""
    return functools.cache(build)
