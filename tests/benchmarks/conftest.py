# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' modules import each other by name, as scripts do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
