# SPDX-License-Identifier: Apache-2.0
"""Calibration and layout ops give the same bits for any number of threads."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from pennyweight import ops

N, K, T = 300, 416, 333


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def hessian(dtype: torch.dtype) -> Tensor:
    h = torch.zeros(K, K)
    ops.hessian_accumulate(h, random(T, K, dtype=dtype))
    return h


def ranges() -> tuple[Tensor, ...]:
    low, high = torch.zeros(1500), torch.zeros(1500)
    ops.column_range(random(50, 1500), low, high)
    return low, high


def gptq() -> tuple[Tensor, ...]:
    weight = random(N, K)
    scale = ops.weight_scales(weight, "int4", 32, "mse")
    codes, stats = ops.gptq_quantize(weight, hessian(torch.float32), scale, 4, 32, 0.01, True)
    return scale, codes, stats, ops.pack_int4(codes, scale, None, "f32"), ops.pack_nibbles(codes)


CALLS: dict[str, Callable[[], Tensor | tuple[Tensor, ...]]] = {
    "hessian-f32": lambda: hessian(torch.float32),
    "hessian-bf16": lambda: hessian(torch.bfloat16),
    "column_range": ranges,
    "column_abs_max": lambda: ops.column_abs_max(random(40, 1500)),
    "quantize_weight": lambda: ops.quantize_weight(random(N, K), torch.full((N, 1), 0.01), -1, "fp8"),
    "gptq": gptq,
}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CALLS)
def test_calibration_gives_the_same_bits_for_any_threads(name: str, threads: None) -> None:
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        out = CALLS[name]()
        results.append(out if isinstance(out, tuple) else (out,))
    for other in results[1:]:
        for first, tensor in zip(results[0], other, strict=True):
            assert torch.equal(first.view(torch.uint8), tensor.view(torch.uint8))
