# SPDX-License-Identifier: Apache-2.0
"""The W8A8 GEMMs of Hopper through the operators: the CPU's results, any shape, CUDA graphs, repetition."""

import pytest
import torch

from pennyweight import _C, ops

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available()
        or torch.cuda.get_device_capability() != (9, 0)
        or not _C.cuda()["built"],
        reason="needs a card of compute capability 9.0, and a build with CUDA",
    ),
]
SHAPES = [
    *[(1, 4096, 4096), (16, 1024, 4096), (17, 136, 1000), (64, 512, 515)],
    *[(65, 520, 96), (129, 264, 257), (700, 1032, 1040)],
]
DTYPES = [torch.bfloat16, torch.float16]


def code_rows(codes: torch.Tensor) -> torch.Tensor:
    """The weight as cards have it: rows of codes, each padded to a multiple of 16 bytes."""
    n, k = codes.shape
    rows = torch.zeros(n, (k + 15) // 16 * 16, dtype=torch.uint8)
    rows[:, :k] = codes.view(torch.uint8)
    return rows.flatten().cuda()


def int8_codes(rows: int, k: int) -> torch.Tensor:
    return torch.randint(-128, 128, (rows, k), dtype=torch.int8)


def fp8_codes(rows: int, k: int) -> torch.Tensor:
    """-2 .. 2, whose sums fit a tensor core's fourteen bits: every order and way of summing gives the same bits."""
    values = torch.randint(-2, 3, (rows, k)).float()
    return values.to(torch.float8_e4m3fn).view(torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("m,n,k", SHAPES)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_gemms_are_the_cpus_bit_for_bit(kind: str, m: int, n: int, k: int, dtype: torch.dtype) -> None:
    make = int8_codes if kind == "int8" else fp8_codes
    x, w = make(m, k), make(n, k)
    row_scale, col_scale = torch.rand(m, 1) * 1e-2, torch.rand(n) * 1e-2
    padded = torch.zeros(m, (k + 15) // 16 * 16, dtype=x.dtype)
    padded[:, :k] = x
    for bias in (None, torch.randn(n, dtype=dtype)):
        gemm, pack = getattr(ops, f"gemm_w8a8_{kind}"), getattr(ops, f"pack_{kind}")
        want = gemm(x, row_scale, pack(w), col_scale, n, bias, dtype)
        on_card = (padded.cuda()[:, :k], row_scale.cuda(), code_rows(w), col_scale.cuda(), n)
        for fast in [{"fast_accum": True}, {"fast_accum": False}] if kind == "fp8" else [{}]:
            got = gemm(*on_card, None if bias is None else bias.cuda(), dtype, **fast)
            assert _C.last_cuda_run(f"gemm_w8a8_{kind}") == "sm90"
            assert torch.equal(got.cpu(), want), fast


@pytest.mark.parametrize("m,n,k", SHAPES)
def test_int8_layers_are_the_cpus_bit_for_bit(m: int, n: int, k: int) -> None:
    x, w, scale = torch.randn(m, k, dtype=torch.bfloat16), int8_codes(n, k), torch.rand(n) * 1e-2
    smooth = torch.rand(k) + 0.5
    want = ops.linear_w8a8_int8(x, ops.pack_int8(w), scale, None, smooth)
    got = ops.linear_w8a8_int8(x.cuda(), code_rows(w), scale.cuda(), None, smooth.cuda())
    assert _C.last_cuda_run("linear_w8a8_int8") == "sm90"
    assert torch.equal(got.cpu(), want)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_captured_layer_replays_on_changed_data_and_repeats_itself(kind: str) -> None:
    n, k = 1024, 2048
    w = code_rows(int8_codes(n, k) if kind == "int8" else fp8_codes(n, k))
    scale = torch.rand(n, device="cuda") * 1e-2
    layer = getattr(ops, f"linear_w8a8_{kind}")
    for m in (1, 33, 300):
        x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        layer(x, w, scale)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x, w, scale)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(y, layer(x, w, scale))
        first = y.clone()
        graph.replay()
        assert torch.equal(y, first)


def test_outputs_that_the_copy_engine_cannot_write_go_to_the_next_implementation() -> None:
    w, scale = code_rows(int8_codes(100, 64)), torch.rand(100, device="cuda")
    ops.linear_w8a8_int8(torch.randn(5, 64, device="cuda", dtype=torch.bfloat16), w, scale)
    assert _C.last_cuda_run("linear_w8a8_int8") == "sm80"
