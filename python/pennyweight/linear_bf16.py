# SPDX-License-Identifier: Apache-2.0
"""An ``nn.Linear`` that stays in bfloat16, on our kernel: the LM head above all.

The weight is read where it lies, neither packed nor copied, so that it may go on being an embedding's too. At one token
reading it is all the work, and torch reads at half to two thirds of what memory gives. With many tokens torch's GEMM is
the better one where the processor multiplies bfloat16 (AVX512-BF16); where it does not, ours is twice as fast at every
number of tokens up to 512 (measured: LM head of (128256, 2048), two cores of an Ice Lake Xeon, torch 2.13).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pennyweight import _C, ops
from pennyweight.fuse import FusedBlock
from pennyweight.swap import replace_module

#: Rows of x up to which our kernel is the faster one; None: at any number. Where torch has bfloat16 instructions our
#: products run at half their rate, and from about 16 rows on arithmetic is the limit, not memory.
MOST_ROWS: int | None = 8 if _C.features()["avx512bf16"] else None


class LinearBF16(nn.Linear):
    """y = x · weightᵀ + bias in bfloat16; a drop-in for the ``nn.Linear`` that it was made from.

    Parameters, state dict and gradients are those of ``nn.Linear``. What the kernel does not serve goes to
    ``torch.nn.functional.linear``: another dtype or device, more rows than ``why_not`` allows, and calls whose
    gradients are recorded. ``pennyweight.explain`` shows which of both runs.
    """

    op: ClassVar[str] = "linear_bf16"

    @staticmethod
    def of(linear: nn.Linear) -> LinearBF16:
        """Make one that holds the same parameters, so that what is tied stays tied."""
        has_bias = linear.bias is not None
        layer = LinearBF16(linear.in_features, linear.out_features, has_bias, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    def why_not(self, rows: int) -> str | None:
        """Say why torch's linear runs for this many rows of bfloat16 x; None: our kernel does."""
        for name, tensor in (("weight", self.weight), ("bias", self.bias)):
            if tensor is None:
                continue
            if tensor.dtype != torch.bfloat16:
                return f"{name} is {str(tensor.dtype).removeprefix('torch.')}, not bfloat16"
            if tensor.device.type != "cpu":
                return f"{name} is on {tensor.device.type}, not on the CPU"
        if MOST_ROWS is not None and rows > MOST_ROWS:
            return f"more than {MOST_ROWS} rows, which torch multiplies with AVX512-BF16"
        return None

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) bfloat16 → (..., N) bfloat16; other dtypes as ``nn.Linear`` takes them."""
        recorded = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        if recorded or x.dtype != torch.bfloat16 or self.why_not(x.numel() // x.shape[-1]) is not None:
            return super().forward(x)
        return ops.linear_bf16(x, self.weight, self.bias)

    def kernel_args(self, m: int) -> dict[str, Any]:
        """What ``_C`` needs to say which implementation runs for M rows."""
        n, k = self.out_features, self.in_features
        return {"m": m, "n": n, "k": k, "x_stride": k, "w_stride": k, "y_stride": n}


def place(model: nn.Module) -> list[str]:
    """Put ``LinearBF16`` where a model on the CPU has an ``nn.Linear`` in bfloat16, in place.

    Args:
        model: Any module, quantized before: what ``ignore`` left and the LM head are what remains. Fused blocks,
            which know their layers, stay as they are.
    Returns:
        The names of the layers that were replaced.
    """
    fused = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, FusedBlock))
    linears = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and name and not name.startswith(fused)
    }
    made = {name: LinearBF16.of(linear) for name, linear in linears.items()}
    taken = {name: layer for name, layer in made.items() if layer.why_not(1) is None}
    for name, layer in taken.items():
        replace_module(model, name, layer)
    return list(taken)
