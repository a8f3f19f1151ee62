# SPDX-License-Identifier: Apache-2.0
"""What a result was measured on, and with what."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def _cpuinfo(field: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.partition(":")[0].strip() == field:
            return line.partition(":")[2].strip()
    return ""


def has_amx() -> bool:
    """Tell whether the processor has matrix tiles, which our kernels do not use."""
    return "amx_tile" in _cpuinfo("flags").split()


def has_bf16_dots() -> bool:
    """Tell whether the processor multiplies bfloat16 by instructions of its own (AVX512-BF16)."""
    return "avx512_bf16" in _cpuinfo("flags").split()


def cap_torch() -> str:
    """Keep torch's oneDNN to the instructions that our kernels use, and its threads from spinning for long when there
    is nothing to do: they would take a core from what is timed next. Call before importing torch.

    Returns:
        The cap in force, or "" where there is none.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # under 1 ms; harness.alternate waits for longer
    if has_amx():
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    return os.environ.get("ONEDNN_MAX_CPU_ISA", "")


def name() -> str:
    """Name the processor and how many of its cores there are: "AMD EPYC, family 25 model 17, 2 cores"."""
    model = _cpuinfo("model name")
    return f"{model}, family {_cpuinfo('cpu family')} model {_cpuinfo('model')}, {os.cpu_count()} cores"


def results_file() -> Path:
    """Where this machine's results go: results/<machine>.json."""
    return HERE / "results" / (re.sub(r"[^a-z0-9]+", "-", name().lower()).strip("-") + ".json")


def commit() -> str:
    """Return the commit measured, "+" added when the tree differs from it."""
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=HERE, capture_output=True, text=True
    )
    return shown.stdout.strip() or "unknown"


def describe() -> dict[str, str]:
    """Return what belongs beside every figure."""
    import torch

    return {
        "machine": name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "commit": commit(),
    }
