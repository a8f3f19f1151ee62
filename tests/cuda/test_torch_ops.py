# SPDX-License-Identifier: Apache-2.0
"""The torch operators on cuda tensors: shapes by fake tensors, the way to the kernels by a fake card."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from emulated_build import ROOT, Build, run
from torch._subclasses.fake_tensor import FakeTensorMode

from pennyweight import _C, ops

ON_CARDS = [name for name, entry in _C.ops().items() if entry["cuda"]]
IN_PYTHON = ["gptq_quantize"]  # on top of an operator that is a kernel


def test_operators_on_cards_are_those_of_the_registry() -> None:
    for name in _C.ops():
        has = torch._C._dispatch_has_kernel_for_dispatch_key(f"pennyweight::{name}", "CUDA")
        assert has == (name in ON_CARDS or name in IN_PYTHON) or not _C.cuda()["built"], name


def test_every_implementation_for_cards_can_be_forced() -> None:
    for name in {name for op in ON_CARDS for name in _C.ops()[op]["cuda"]}:
        _C.force(name)
        assert _C.forced() == name
    _C.force(None)


def test_fake_tensors_on_cuda_keep_their_device() -> None:
    with FakeTensorMode():
        x = torch.empty(2, 3, 64, dtype=torch.bfloat16, device="cuda")
        codes, scale = ops.quantize_per_token_int8(x)
        assert (codes.device.type, codes.shape, scale.shape) == ("cuda", (2, 3, 64), (2, 3, 1))
        codes, _, hidden = ops.rms_norm_quantize_fp8(
            x, torch.empty(64, dtype=x.dtype, device="cuda"), 1e-5, x
        )
        assert (codes.device.type, codes.dtype, hidden.shape) == ("cuda", torch.uint8, x.shape)
        codes, _ = ops.silu_mul_quantize_int8(x)
        assert (codes.device.type, codes.shape) == ("cuda", (2, 3, 32))


def compile_fake_card(folder: Path, name: str) -> tuple[Path, Path]:
    source = ROOT / "tests/cuda/fake_card.cpp"
    torch_cuda, card = folder / f"lib{name}.so", folder / "libfake_card.so"
    include = Path(torch.__file__).parent / "include"
    flags = ["-std=c++20", "-O1", "-w", "-fPIC", "-shared", f"-isystem{include}",
             f"-isystem{include}/torch/csrc/api/include"]  # fmt: skip
    built = run("g++", *flags, "-DPW_FAKE_TORCH_CUDA", source, f"-Wl,-soname,lib{name}.so", "-o", torch_cuda)
    assert built.returncode == 0, built.stdout
    library = Path(torch.__file__).parent / "lib"
    libraries = [
        f"-L{library}",
        "-lc10",
        "-ltorch_cpu",
        f"-L{folder}",
        f"-l{name}",
    ]
    built = run("g++", *flags, source, *libraries, f"-Wl,-rpath,{folder}:{library}", "-o", card)
    assert built.returncode == 0, built.stdout
    return torch_cuda, card


@pytest.mark.skipif(not _C.cuda()["built"], reason="NOT CHECKED: pennyweight was built without CUDA")
@pytest.mark.parametrize(
    ("script", "name", "compute"),
    [
        ("on_fake_card", "torch_cuda", "80"),
        ("on_fake_card", "torch_of_another_name", "89"),
        ("calibrate_on_fake_card", "torch_cuda", "80"),
        ("models_on_fake_card", "torch_cuda", "89"),
        ("models_on_fake_card", "torch_of_another_name", "80"),
        ("benchmarks_on_fake_card", "torch_cuda", "89"),
    ],
)
def test_on_a_fake_card(emulated: Build, tmp_path: Path, script: str, name: str, compute: str) -> None:
    """Results, device, stream, device guard, errors, whole models; the kernels emulated.

    A torch whose CUDA half has another name is asked for its stream through the device-neutral interface.
    """
    torch_cuda, card = compile_fake_card(tmp_path, name)
    half = emulated("none") / "libemulated_cards.so"
    kernels = Path(_C.__file__).parent / "libpennyweight_kernels.so"
    result = subprocess.run(
        [sys.executable, ROOT / f"tests/cuda/{script}.py", kernels, torch_cuda, card, compute],
        env=os.environ | {"LD_PRELOAD": str(half)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
