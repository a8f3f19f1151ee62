# SPDX-License-Identifier: Apache-2.0
"""Advice reads files of benchmarks: they are made up as the tests of these make them up."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmark"))
