# SPDX-License-Identifier: Apache-2.0
"""GPTQ on a card: torch factors the Hessian, our kernel decides 128 columns at a time, torch multiplies.

With the columns in order of visit, H = R R^T, R upper triangular (a Cholesky factorization of H seen from its
last row and column); the objective is |(w - q s) R|^2, and

    q_i = round((w_i + sum_{j<i} d_j R_ji / R_ii) / s_i),  d_j = w_j - q_j s_j

which is GPTQ without the inverse of H (R^-1 is the usual formulation's Cholesky factor of it):

    for each block of 128 columns:   gptq_columns    the recurrence inside the block: codes and d
                                     sums[later] += d @ R[block, later]

Products are float32. The host waits once per solve (for whether the factorization worked; once more each time
that damping is raised); layers of one shape are solved side by side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from pennyweight.errors import ShapeError, UnsupportedError
from pennyweight.ops._call import call

BLOCK = 128
RETRIES = 5  # tenfold each: from 0.01 to 1000 times the mean of the diagonal
_ENERGY_ROWS = 256  # w H w^T is computed for this many rows or a few more, and scaled up to all
_FLOOR = 2.0**-23  # of a diagonal entry: what float32 cannot tell from zero


@dataclass
class Factor:
    """What became of the Hessians.

    Attributes:
        hessian: (L, K, K), undamped, dead columns' diagonal 1, seen from the last visited column: only its
            products with weights in that order mean anything.
        factor: (L, K, K): R, upper triangular, in order of visit; the identity where nothing worked.
        damping: (L,) float64: the share that was added.
        mean: (L,) float64: of which that is a share.
        positive: (L,) bool: whether the factorization worked.
        everywhere: Whether it did for all of them, known to the host.
    """

    hessian: Tensor
    factor: Tensor
    damping: Tensor
    mean: Tensor
    positive: Tensor
    everywhere: bool


def gptq_quantize(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    bits: int,
    group_size: int,
    damping: float,
    act_order: bool,
) -> tuple[Tensor, Tensor]:
    """The operator on a card: arguments and results as `ops.gptq_quantize` says."""
    if weight.dim() != 2 or weight.numel() == 0:
        _fail("weight must have two dimensions, neither empty", "weight", weight)
    size = _check(weight, hessian, scale, bits, group_size, damping)
    codes, stats = solve(weight[None], hessian[None], scale[None], bits, size, damping, act_order)
    return codes[0], stats[0]


def gptq_quantize_layers(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    bits: int,
    group_size: int,
    damping: float,
    act_order: bool,
) -> tuple[Tensor, Tensor]:
    """Layers of one shape side by side: `gptq_quantize`, every tensor with a leading dimension."""
    if weight.dim() != 3 or weight.numel() == 0:
        _fail("weight must be (layers, N, K), none empty", "weight", weight)
    size = _check(weight, hessian, scale, bits, group_size, damping)
    return solve(weight, hessian, scale, bits, size, damping, act_order)


@torch.no_grad()
def solve(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    bits: int,
    group_size: int,
    damping: float,
    act_order: bool,
    retries: int = RETRIES,
) -> tuple[Tensor, Tensor]:
    """Quantize layers of one shape.

    Args:
        weight: (L, N, K), any float.
        hessian: (L, K, K) float32, lower triangles.
        scale: (L, N, K / group_size) float32.
        bits, group_size, damping, act_order: As for `ops.gptq_quantize`; group_size K for the channel.
        retries: How often damping is raised.
    Returns:
        codes (L, N, K) int8 and stats (L, 5) float64.
    """
    layers, n, k = weight.shape
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    dead = diagonal == 0
    order = torch.arange(k, device=weight.device).expand(layers, k)
    if act_order:
        order = diagonal.argsort(dim=1, descending=True, stable=True)
    with _full_float32():
        found = _factorize(hessian, order, damping, retries)
        of_rows = order[:, None, :].expand(layers, n, k)
        w = weight.gather(2, of_rows).float().masked_fill_(dead.gather(1, order)[:, None, :], 0.0)
        group = (order // group_size).int()
        energy, norm = _energy(w, found.hessian, diagonal.gather(1, order)), _squared(w)
        codes_visited, loss = _solve_blocks(w, found.factor, scale.contiguous(), group, bits)
        error = _squared(w)  # w is d now
        objective = loss.double().sum(1) - found.damping * found.mean * error
        if not found.everywhere:
            objective = torch.where(found.positive, objective, _quadratic(w, found.hessian))
    codes = torch.empty_like(codes_visited).scatter_(2, of_rows, codes_visited)
    used = torch.where(found.positive, found.damping, -1.0)
    relative = torch.where(norm > 0, error / norm, 0.0)
    return codes, torch.stack([used, dead.sum(1).double(), objective, energy, relative], 1)


def _factorize(hessian: Tensor, order: Tensor, damping: float, retries: int) -> Factor:
    layers, k = order.shape
    last_first = order.flip(1)
    lower = hessian.tril()
    whole = lower + lower.tril(-1).mT
    del lower
    seen = whole.gather(1, last_first[:, :, None].expand(layers, k, k))
    seen = seen.gather(2, last_first[:, None, :].expand(layers, k, k))
    del whole
    diagonal = seen.diagonal(dim1=1, dim2=2)
    diagonal.masked_fill_(diagonal == 0, 1.0)
    undamped = diagonal.double()
    mean = undamped.mean(1)
    used = torch.full_like(mean, damping)
    for attempt in range(retries + 1):
        damped = (undamped + (used * mean)[:, None]).float()
        diagonal.copy_(damped)
        # one by one: many at once go to a routine that is made for small matrices
        lower, info = (torch.stack(t) for t in zip(*map(torch.linalg.cholesky_ex, seen), strict=True))
        pivots = lower.diagonal(dim1=1, dim2=2).square()
        enough = (pivots > damped * _FLOOR) & pivots.isfinite()
        positive = (info == 0) & enough.all(1)
        everywhere = bool(positive.all())  # here the host waits
        if everywhere or attempt == retries:
            break
        used = torch.where(positive, used, used * 10.0)
    diagonal.copy_(undamped)
    factor = lower.flip(1, 2)
    if not everywhere:
        factor = torch.where(positive[:, None, None], factor, torch.eye(k, device=seen.device))
    return Factor(seen, factor, used, mean, positive, everywhere)


def _solve_blocks(
    w: Tensor, factor: Tensor, scale: Tensor, group: Tensor, bits: int
) -> tuple[Tensor, Tensor]:
    """Codes (L, N, K) in order of visit and loss (L, N); w becomes d."""
    layers, n, k = w.shape
    codes = w.new_empty((layers, n, k), dtype=torch.int8)
    sums, loss = torch.zeros_like(w), w.new_zeros((layers, n))
    for first in range(0, k, BLOCK):
        call("gptq_columns", factor, sums, scale, group, w, codes, loss, first, bits)
        end = first + BLOCK
        if end < k:
            sums[:, :, end:].baddbmm_(w[:, :, first:end], factor[:, first:end, end:])
    return codes, loss


def _energy(w: Tensor, hessian: Tensor, diagonal: Tensor) -> Tensor:
    """w H w^T summed over rows: some of them, scaled by what these hold of the sum of w diag(H) w^T."""
    weighted = (w.square() * diagonal[:, None, :]).sum(2, dtype=torch.float64)
    step = max(1, w.shape[1] // _ENERGY_ROWS)
    some, sampled = w[:, ::step], weighted[:, ::step].sum(1)
    share = torch.where(sampled != 0, weighted.sum(1) / sampled, 0.0)
    return _quadratic(some, hessian) * share


def _squared(v: Tensor) -> Tensor:
    """The sum of squares of each layer."""
    return v.square().sum((1, 2), dtype=torch.float64)


def _quadratic(v: Tensor, hessian: Tensor) -> Tensor:
    """v H v^T summed over the rows of v (L, N, K) in order of visit; H as `Factor` has it."""
    seen = v.flip(2)
    return (seen @ hessian).mul_(seen).sum((1, 2), dtype=torch.float64)


@contextlib.contextmanager
def _full_float32() -> Iterator[None]:
    """Products in float32, whatever torch was told of TF32."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _check(weight: Tensor, hessian: Tensor, scale: Tensor, bits: int, group_size: int, damping: float) -> int:
    """The group size, K for -1, of arguments that fit each other; worded as csrc/checks.cpp does."""
    tensors = {"weight": weight, "hessian": hessian, "scale": scale}
    for name, t in tensors.items():
        if t.device != weight.device:
            _fail(f"all tensors must be on {weight.device}, as the first is", name, t, "move it with .to()")
        if name != "weight" and t.dtype != torch.float32:
            _fail(f"{name} must be float32", name, t, "convert it with .to()")
    if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        _fail("weight must be float32, float16 or bfloat16", "weight", weight, "convert it with .to()")
    if bits not in (4, 8):
        raise UnsupportedError(f"gptq_quantize: bits must be 8 or 4; got {bits}")
    if not 0 <= damping < float("inf"):
        raise ShapeError(
            f"gptq_quantize: damping must be finite and not negative; got {damping}; 0.01 is usual"
        )
    *layers, n, k = weight.shape
    size = k if group_size == -1 else group_size
    if size < 1 or k % size:
        raise ShapeError(
            f"gptq_quantize: K must be a multiple of group_size; got K={k}, group_size={group_size}; use "
            "group_size=-1 (one scale per channel), or leave this layer out with ignore="
        )
    for name, t, shape in (("hessian", hessian, (*layers, k, k)), ("scale", scale, (*layers, n, k // size))):
        if t.shape != shape:
            _fail(f"{name} must be {list(shape)}", name, t)
    return size


def _fail(rule: str, name: str, t: Tensor, remedy: str = "") -> NoReturn:
    dtype = str(t.dtype).removeprefix("torch.")
    got = f"got {name}: {list(t.shape)} {dtype} {t.device}"
    raise ShapeError(f"gptq_quantize: {rule}; {got}" + (f"; {remedy}" if remedy else ""))


def register() -> torch.library.Library:
    """Register the operator for cards with torch; holds as long as what is returned lives."""
    library = torch.library.Library("pennyweight", "IMPL")
    library.impl("gptq_quantize", gptq_quantize, "CUDA")
    return library
