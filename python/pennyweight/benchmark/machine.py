# SPDX-License-Identifier: Apache-2.0
"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch


def describe() -> dict[str, Any]:
    """Return name, cpu, cores, threads, memory_bytes and cards of this machine.

    The name is that of its cards, or of its processor with family, model and cores, as a processor's name alone often
    says little on a virtual machine.
    """
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = os.cpu_count() or 1
    cpu = _cpu("model name") or platform.processor() or platform.machine()
    numbers = f", family {_cpu('cpu family')} model {_cpu('model')}" if _cpu("cpu family") else ""
    return {
        "name": f"{len(cards)} x {cards[0]}" if cards else f"{cpu}{numbers}, {cores} cores",
        "cpu": cpu, "cores": cores, "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "cards": cards,
    }  # fmt: skip


def free_memory() -> int:
    """Return the bytes of memory that are free for new data."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _cpu(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next(
        (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), ""
    )
