# SPDX-License-Identifier: Apache-2.0
"""Run by test_torch_ops.py: the torch operators on tensors of a fake card, the kernels emulated."""

from fake_card import card, emulated, host, run, state  # before torch

import torch  # isort: skip

from pennyweight import _C, ops
from pennyweight.errors import ShapeError, UnsupportedError


def seen() -> tuple[int, int]:
    """The stream and the device of the last launch."""
    return emulated.pw_last_stream(), state.device


def test_operators_give_the_cpu_results() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x, gain = torch.randn(3, 5, 72, dtype=dtype), torch.rand(72, dtype=dtype) + 0.5
        smooth = torch.rand(72) + 0.5
        calls = [
            ("quantize_per_token_int8", (x, None)),
            ("quantize_per_token_fp8", (x, smooth)),
            ("silu_mul_quantize_int8", (x,)),
            ("silu_mul_quantize_fp8", (x,)),
        ]
        for name, args in calls:
            want = getattr(ops, name)(*args)
            got = getattr(ops, name)(*(card(a) for a in args))
            assert _C.last_cuda_run(name) == "sm80", name
            for a, b in zip(got, want, strict=True):
                assert a.device == torch.device("cuda:1") and torch.equal(host(a), b), (name, dtype)
        assert torch.equal(host(ops.silu_mul(card(x))), ops.silu_mul(x)), dtype
        assert _C.last_cuda_run("silu_mul") == "sm80"
        for name in ("rms_norm_quantize_int8", "rms_norm_quantize_fp8", "rms_norm"):
            for residual in (None, torch.randn_like(x)):
                want = getattr(ops, name)(x, gain, 1e-5, residual)
                got = getattr(ops, name)(card(x), card(gain), 1e-5, card(residual))
                for a, b in zip(got, want, strict=True):
                    # one rounding of the normed row at the most
                    same = (host(a).float() - b.float()).abs() <= 0.01 * b.float().abs() + (
                        b.dtype in (torch.int8, torch.uint8)
                    )
                    assert a.shape == b.shape and same.all(), (name, dtype)
    assert state.guards == 0 and state.device == 0, "a device guard stayed open"


def test_current_stream_of_the_tensors_device() -> None:
    x = torch.randn(2, 64)
    for device, stream in ((0, 0x1000), (1, 0x2000), (1, 0), (0, 0x3000)):
        state.streams[device] = stream
        codes, _ = ops.quantize_per_token_int8(card(x, device))
        assert (emulated.pw_last_stream() or 0) == stream
        assert codes.device.index == device
    state.streams[0] = state.streams[1] = None


def test_many_tokens_go_to_torch_on_the_decoded_weight() -> None:
    codes = torch.randint(-8, 8, (24, 64), dtype=torch.int8)
    scale = (torch.rand(24, 2) + 0.5).bfloat16().float()
    packed = ops.pack_int4(codes, scale, None, "bf16")
    dense = ops.dequantize_int4(packed, 24, 64, 32, "bf16", False).bfloat16()
    for bias in (None, torch.randn(24, dtype=torch.bfloat16)):
        x = torch.randn(2, 520, 80, dtype=torch.bfloat16)[..., :64]
        x = card(x) if bias is None else card(torch.nn.functional.pad(x, (0, 16)))[..., :64]  # rows apart
        got = ops.linear_w4a16(x, card(packed), 24, 32, "bf16", False, card(bias))
        assert _C.last_cuda_run("linear_w4a16") == "sm80_decoded"
        want = torch.nn.functional.linear(x, card(dense), card(bias))
        # torch sums two dimensions and three in other orders: 64 roundings of 2^-24 of at most 2000
        torch.testing.assert_close(host(got), host(want), rtol=2**-7, atol=0.01)


def test_empty_and_single() -> None:
    codes, scale = ops.quantize_per_token_int8(card(torch.empty(0, 64)))
    assert codes.shape == (0, 64) and scale.shape == (0, 1)
    codes, scale = ops.quantize_per_token_fp8(card(torch.zeros(1, 1)))
    assert host(codes).item() == 0 and host(scale).item() == 0.0


def raises(error: type[Exception], words: str, name: str, *args: object) -> None:
    try:
        getattr(ops, name)(*args)
    except error as e:
        assert words in str(e), str(e)
    else:
        raise AssertionError(f"{name} did not raise {error}")


def test_errors() -> None:
    x = torch.randn(2, 64)
    raises(ShapeError, "all tensors must be on cuda:1, as the first is; got smooth: [64] float32 cpu",
           "quantize_per_token_int8", card(x), torch.ones(64))  # fmt: skip
    raises(
        ShapeError,
        "got smooth: [64] float32 cuda:0",
        "quantize_per_token_int8",
        card(x),
        card(torch.ones(64), 0),
    )
    raises(
        UnsupportedError,
        "sm80: a row is longer than",
        "quantize_per_token_int8",
        card(torch.zeros(1, 1 << 20)),
    )
    half = card(x.bfloat16())
    raises(
        UnsupportedError,
        "kernels run on dense CPU tensors; got cuda strided",
        "linear_bf16",
        half,
        half,
    )
    assert state.guards == 0 and state.device == 0, "a device guard stayed open after an error"


def test_strict_and_forced_names() -> None:
    x = torch.randn(2, 64)
    _C.force("sm80")
    ops.quantize_per_token_int8(card(x))
    ops.quantize_per_token_int8(x)  # the CPU takes its best
    assert _C.last_run("quantize_per_token_int8") != "reference"
    _C.force("reference")
    ops.quantize_per_token_int8(card(x))
    _C.force(None)


run(dict(globals()))
