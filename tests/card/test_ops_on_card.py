# SPDX-License-Identifier: Apache-2.0
"""The operators on a card: the CPU's results, any stream and device, CUDA graphs, torch.compile."""

import pytest
import torch

from pennyweight import _C, ops

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available() or not _C.cuda()["built"], reason="needs a card, and a build with CUDA"
    ),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ROWS = [(1, 4096), (3, 4095), (17, 1024), (512, 4096), (129, 14336), (2, 40000)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantizations_are_the_cpus_bit_for_bit(kind: str, dtype: torch.dtype) -> None:
    for m, k in ROWS:
        x, smooth = torch.randn(m, k, dtype=dtype), torch.rand(k) + 0.5
        calls = {
            "quantize_per_token": [(x, None), (x, smooth)],
            "silu_mul_quantize": [(x[:, : k // 2 * 2],)],
        }
        for name, args in [(name, args) for name, listed in calls.items() for args in listed]:
            call = getattr(ops, f"{name}_{kind}")
            want = call(*args)
            got = call(*(a if a is None else a.cuda() for a in args))
            assert _C.last_cuda_run(f"{name}_{kind}") == "sm80"
            for a, b in zip(got, want, strict=True):
                assert torch.equal(a.cpu(), b), (name, m, k)
        even = x[:, : k // 2 * 2]
        assert torch.equal(ops.silu_mul(even.cuda()).cpu(), ops.silu_mul(even)), (m, k)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rms_norm_quantize_is_at_most_one_code_in_10000_off(dtype: torch.dtype) -> None:
    off = total = 0
    for m, k in ROWS:
        x, residual = torch.randn(m, k, dtype=dtype), torch.randn(m, k, dtype=dtype)
        gain = torch.rand(k, dtype=dtype) + 0.5
        want, _, hidden = ops.rms_norm_quantize_int8(x, gain, 1e-5, residual)
        got, _, hidden_got = ops.rms_norm_quantize_int8(x.cuda(), gain.cuda(), 1e-5, residual.cuda())
        assert torch.equal(hidden_got.cpu(), hidden)
        distance = (got.cpu().int() - want.int()).abs()
        assert distance.max() <= 1
        off, total = off + int(distance.sum()), total + want.numel()
    assert off * 10_000 <= total


def test_a_captured_graph_replays_on_changed_data() -> None:
    x = torch.randn(64, 4096, device="cuda", dtype=torch.bfloat16)
    ops.quantize_per_token_int8(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        codes, scale = ops.quantize_per_token_int8(x)
    x.copy_(torch.randn_like(x))
    graph.replay()
    want = ops.quantize_per_token_int8(x)
    assert torch.equal(codes, want[0]) and torch.equal(scale, want[1])


def test_another_stream_is_used() -> None:
    x = torch.zeros(4096, 8192, device="cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)
        x.fill_(3.0)
        _, scale = ops.quantize_per_token_int8(x)  # in order behind the fill, or it sees zeros
    side.synchronize()
    assert torch.equal(scale, torch.full_like(scale, 3.0 / 127.0))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two cards")
def test_the_second_card_is_used() -> None:
    x = torch.randn(8, 512, device="cuda:1")
    codes, _ = ops.quantize_per_token_fp8(x)
    assert codes.device == x.device and torch.cuda.current_device() == 0
    assert torch.equal(codes.cpu(), ops.quantize_per_token_fp8(x.cpu())[0])


def test_operators_compile_without_graph_breaks() -> None:
    def step(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        codes, scale, _ = ops.rms_norm_quantize_int8(x, gain, 1e-5, None)
        return codes.float() * scale

    x, gain = torch.randn(8, 512, device="cuda"), torch.ones(512, device="cuda")
    got = torch.compile(step, fullgraph=True)(x, gain)
    torch.testing.assert_close(got, step(x, gain))


def test_operators_pass_opcheck_on_a_card() -> None:
    x = torch.randn(3, 64, device="cuda")
    for name in ("quantize_per_token_int8", "quantize_per_token_fp8", "silu_mul_quantize_int8"):
        torch.library.opcheck(getattr(torch.ops.pennyweight, name), (x,))
