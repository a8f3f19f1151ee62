# SPDX-License-Identifier: Apache-2.0
"""The host's half of Hopper's GEMMs, every tile's: what it asks of the runtime and the driver."""

import shutil
from pathlib import Path

import pytest
from emulated_build import ROOT, run

from pennyweight import _C


def test_launches_ask_for_what_a_card_takes(tmp_path: Path) -> None:
    """The objects of the build, linked with a program that stands for the CUDA runtime."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not nvcc or not _C.cuda()["built"]:
        pytest.skip("NOT CHECKED: no nvcc, hence no objects to launch from")
    folders = ROOT.glob("build/*/CMakeFiles/pennyweight_kernels_sm90.dir/kernels/cuda")
    newest = max(folders, key=lambda folder: folder.stat().st_mtime, default=None)
    assert newest, "the build has no objects of the GEMMs for Hopper: is nvidia-cutlass installed?"
    kernels, program = ROOT / "kernels", tmp_path / "launches"
    includes = [f"-I{folder}" for folder in (kernels / "include", kernels, kernels / "cuda")]
    source, objects = ROOT / "tests/cuda/launches_sm90.cpp", sorted(newest.glob("*.o"))
    built = run(nvcc, "-std=c++20", "-w", "-cudart", "none", *includes, source, *objects, "-o", program)
    assert built.returncode == 0, built.stdout
    result = run(program)
    assert result.returncode == 0, result.stdout
