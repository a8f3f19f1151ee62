# SPDX-License-Identifier: Apache-2.0
"""How vLLM is run here: on a small machine, without a network."""

from __future__ import annotations

import os

SCHEMES = ("W8A8-FP", "W8A8-INT", "W4A16-INT")
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


def environment() -> dict[str, str]:
    """The variables of its processes, which must not see this process's packages."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | SETTINGS
