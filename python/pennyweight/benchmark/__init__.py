# SPDX-License-Identifier: Apache-2.0
"""What a format's speed is worth: latency of one query, throughput of many, and queries per dollar.

Results are JSON files (`pennyweight.benchmark.results` has the layout); `read` gives one back, checked.
"""

from __future__ import annotations

from pennyweight.benchmark.results import read

__all__ = ["read"]
