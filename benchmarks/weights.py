# SPDX-License-Identifier: Apache-2.0
"""The layers under test: one random weight in every format, its call, and what its result may be off by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pennyweight import ops

GROUP = 128
#: Unit roundoffs: half the distance from 1 to the next number.
U_F64, U_F32, U_BF16 = 2.0**-53, 2.0**-24, 2.0**-8


@dataclass
class Layer:
    """A packed weight.

    Attributes:
        call: x (M, K) bfloat16 → y (M, N) bfloat16.
        weight: What the codes stand for, on sampled outputs: float64 (S, K).
        group: K of one scale; 0: the whole channel.
        packed: The codes as the kernel reads them.
        activation: How x is quantized first: "int8", "fp8" or None.
    """

    call: Callable[[Tensor], Tensor]
    weight: Tensor
    group: int
    packed: Tensor
    activation: str | None = None

    @property
    def bytes(self) -> int:
        """What one call must read of the weight."""
        return self.packed.nbytes


def _w8(weight: Tensor, rows: Tensor, form: str) -> Layer:
    scale = weight.abs().amax(1, keepdim=True) / (127.5 if form == "int8" else 448)
    if form == "int8":
        codes = (weight / scale).round_().clamp_(-128, 127).to(torch.int8)
        packed = ops.pack_int8(codes)
    else:
        codes = (weight / scale).clamp_(-448, 448).to(torch.float8_e4m3fn)
        packed = ops.pack_fp8(codes.view(torch.uint8))
    linear = ops.linear_w8a8_int8 if form == "int8" else ops.linear_w8a8_fp8
    column = scale.flatten()
    stands = codes[rows].double() * scale[rows].double()
    return Layer(lambda x: linear(x, packed, column), stands, 0, packed, form)


def _w4(weight: Tensor, rows: Tensor, activation: str | None) -> Layer:
    n, k = weight.shape
    groups = weight.view(n, k // GROUP, GROUP)
    scale = (groups.abs().amax(2, keepdim=True) / 7.5).bfloat16().float()
    codes = (groups / scale).round_().clamp_(-8, 7)
    packed = ops.pack_int4(codes.view(n, k).to(torch.int8), scale.view(n, -1), None, "bf16")
    linear = ops.linear_w4a8_int8 if activation else ops.linear_w4a16
    stands = (codes[rows].double() * scale[rows].double()).view(len(rows), k)
    return Layer(lambda x: linear(x, packed, n, GROUP, "bf16", False), stands, GROUP, packed, activation)


OPS: dict[str, Callable[[Tensor, Tensor], Layer]] = {
    "linear_w8a8_int8": lambda weight, rows: _w8(weight, rows, "int8"),
    "linear_w8a8_fp8": lambda weight, rows: _w8(weight, rows, "fp8"),
    "linear_w4a16": lambda weight, rows: _w4(weight, rows, None),
    "linear_w4a8_int8": lambda weight, rows: _w4(weight, rows, "int8"),
}


def _activations(x: Tensor, form: str | None) -> Tensor:
    """Return what the kernel multiplies by: x, or what its codes stand for, float64 (M, K)."""
    if form is None:
        return x.double()
    value = x.float()
    scale = value.abs().amax(1, keepdim=True) / (127 if form == "int8" else 448)
    quotient = value / scale
    codes = quotient.round() if form == "int8" else quotient.to(torch.float8_e4m3fn)
    return codes.double() * scale.double()


def relative_error(x: Tensor, y: Tensor, dense: Tensor, rows: Tensor) -> float:
    """Compare a result with the product of the weight before it was quantized, on sampled outputs.

    Args:
        x: Activations (M, K).
        y: The result (M, N).
        dense: The sampled outputs' weight (S, K).
        rows: Which outputs those are (S).

    Returns:
        Frobenius norm of the difference over that of the product.
    """
    exact = x.double() @ dense.double().T
    return float((y[:, rows].double() - exact).norm() / exact.norm())


def error_over_bound(layer: Layer, x: Tensor, y: Tensor, rows: Tensor) -> float:
    """Compare a result with the plain sum in float64, on sampled outputs.

    The bound: one rounding to bfloat16 at the end, three in float32 before it, and what the sum rounds: of integers
    nothing, of their groups K / G additions, of FP8 codes K additions in any order; and where x is not quantized one
    more rounding of each term to bfloat16, since a kernel may round weight · scale to x's dtype. What the
    sum in float64 rounds is added: where integers add up to 0 it is all that there is.

    Returns:
        The largest error as a share of its bound: at most 1 for a right kernel, NaN or more for a wrong one.
    """
    activations = _activations(x, layer.activation)
    exact = activations @ layer.weight.T  # (M, S)
    magnitude = activations.abs() @ layer.weight.abs().T
    k = x.shape[1]
    additions = k if layer.activation != "int8" else (k // layer.group if layer.group else 0)
    per_term = additions * U_F32 + (0.0 if layer.activation else U_BF16) + k * U_F64
    bound = per_term * magnitude + (U_BF16 + 4 * U_F32) * exact.abs() + 1e-30
    share = (y[:, rows].double() - exact).abs() / bound
    return float("nan") if bool(share.isnan().any()) else float(share.max())
