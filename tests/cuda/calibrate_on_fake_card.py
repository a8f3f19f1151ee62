# SPDX-License-Identifier: Apache-2.0
"""Run by test_torch_ops.py: packing and calibration as torch operators on a fake card, the kernels emulated."""

from fake_card import card, host, run, state  # before torch

import torch  # isort: skip

from pennyweight import _C, ops, testing
from pennyweight.algorithms import gptq, scales
from pennyweight.errors import ShapeError

# What an operator gives is the CPU's bit for bit, or within this (relative, and absolute for sums near zero).
WITHIN = {"hessian_accumulate": 1e-5, "gptq_columns": 2e-5, "smooth_scales": 2e-7}
IN_PLACE = {"hessian_accumulate": (0,), "column_range": (1, 2), "gptq_columns": (4, 5, 6)}


def call(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[torch.Tensor, ...]:
    """An operator's outputs, those in place too."""
    out = getattr(ops, name)(*args, **kwargs)
    if out is None:
        return tuple(args[i] for i in IN_PLACE[name])
    return out if isinstance(out, tuple) else (out,)


def to_card(value: object) -> object:
    return card(value) if isinstance(value, torch.Tensor) else value


def check(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    on_card = tuple(to_card(a) for a in args)
    got, want = call(name, on_card, kwargs), call(name, args, kwargs)
    assert _C.last_cuda_run(name) == "sm80", name
    for a, b in zip(got, want, strict=True):
        assert a.device == torch.device("cuda:1") and (a.shape, a.dtype) == (b.shape, b.dtype), name
        a = host(a)
        if name in WITHIN and a.dtype == torch.float32:
            torch.testing.assert_close(a, b, rtol=WITHIN[name], atol=WITHIN[name])
        else:
            assert torch.equal(a, b), name


def test_operators_give_the_cpu_results() -> None:
    names = ("pack_int4", "unpack_int4", "dequantize_int4", "pack_nibbles", "unpack_nibbles")
    columns = ("quantize_weight", "column_range", "column_abs_max", "smooth_scales")
    for name in (*names, *columns, "hessian_accumulate", "gptq_columns"):
        for args, kwargs in testing.sample_inputs(name):
            check(name, args, kwargs)
    assert state.guards == 0 and state.device == 0, "a device guard stayed open"


def test_codes_of_8_bits_go_to_rows_and_back() -> None:
    torch.manual_seed(0)
    for kind, dtype in (("int8", torch.int8), ("fp8", torch.uint8)):
        for n, k in ((70, 132), (3, 64), (1, 1)):
            codes = torch.randint(-128 if kind == "int8" else 0, 120, (n, k), dtype=dtype)
            scale = torch.rand(n, 1)
            packed = getattr(ops, f"pack_{kind}")(card(codes))
            width = -(-k // 16) * 16
            want = torch.zeros(n, width, dtype=torch.uint8)
            want[:, :k] = codes.view(torch.uint8)
            assert torch.equal(host(packed), want.flatten())
            assert torch.equal(host(getattr(ops, f"unpack_{kind}")(packed, n, k)), codes)
            floats = getattr(ops, f"dequantize_{kind}")(packed, card(scale), n, k)
            here = getattr(ops, f"dequantize_{kind}")(getattr(ops, f"pack_{kind}")(codes), scale, n, k)
            assert torch.equal(host(floats), here)


def test_scales() -> None:
    torch.manual_seed(0)
    same = total = 0
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for kind, group in (("int8", -1), ("int4", 32), ("fp8", -1)):
            weight = (torch.randn(9, 64) * 0.02).to(dtype)
            least = scales.minmax(card(weight), kind, group)
            assert torch.equal(host(least), scales.minmax(weight, kind, group))
            found, want = host(scales.mse(card(weight), kind, group)), scales.mse(weight, kind, group)
            assert (found <= host(least)).all()
            same, total = same + int((found == want).sum()), total + want.numel()
    if _C.last_run("weight_scales") == "avx512vnni":  # whose order of summation is the card's
        assert same == total
    assert same >= 0.97 * total


def problem(n: int, k: int, dead: tuple[int, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(n * k)
    x = torch.randn(3 * k, k, generator=g) @ (torch.eye(k) + torch.randn(k, k, generator=g) * 0.5 / k**0.5)
    x[:, list(dead)] = 0
    return torch.randn(n, k, generator=g) * 0.02, x.T @ x


def test_gptq() -> None:
    for n, k, group, bits, dead in ((17, 96, 32, 4, (3,)), (5, 201, -1, 8, ()), (33, 256, 128, 4, (0, 255))):
        for act_order in (False, True):
            weight, hessian = problem(n, k, dead)
            scale = scales.minmax(weight, f"int{bits}", group)
            rest = (bits, group, 0.01, act_order)
            want, expected = ops.gptq_quantize(weight, hessian, scale, *rest)
            codes, stats = ops.gptq_quantize(card(weight), card(hessian), card(scale), *rest)
            assert codes.device == stats.device == torch.device("cuda:1")
            assert (host(codes) == want).float().mean() >= 0.999, (n, k)
            torch.testing.assert_close(host(stats), expected, rtol=1e-3, atol=0)
    assert _C.last_cuda_run("gptq_columns") == "sm80"
    assert state.guards == 0 and state.device == 0, "a device guard stayed open"


def test_gptq_of_layers_side_by_side() -> None:
    layers = [problem(9, 160), problem(9, 160, (7,))]
    weights, hessians = zip(*layers, strict=True)
    found = [scales.minmax(weight, "int4", 32) for weight in weights]
    options = {"bits": 4, "group_size": 32, "damping": 0.01, "act_order": "static"}
    on_card = [[card(t) for t in tensors] for tensors in (weights, hessians, found)]
    for one, (weight, hessian), scale in zip(
        gptq.solve_layers(*on_card, **options), layers, found, strict=True
    ):
        want = gptq.solve(weight, hessian, scale, **options)
        assert (host(one.codes) == want.codes).float().mean() >= 0.999
        assert (one.damping, one.dead_columns) == (want.damping, want.dead_columns)


def test_errors() -> None:
    weight, hessian = problem(3, 64)
    scale = scales.minmax(weight, "int4", 32)
    try:
        ops.gptq_quantize(card(weight), hessian, card(scale), 4, 32, 0.01, True)
    except ShapeError as e:
        assert "all tensors must be on cuda:1, as the first is; got hessian: [64, 64] float32 cpu" in str(e)
    else:
        raise AssertionError("tensors of two devices were taken")
    assert state.guards == 0 and state.device == 0, "a device guard stayed open after an error"


run(dict(globals()))
