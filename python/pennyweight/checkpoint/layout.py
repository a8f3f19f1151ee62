# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint must hold for a model: names, shapes and dtypes, checked before a byte of data is read.

    scheme      tensors of a linear layer (N, K); G: group size, or K for one scale per channel
    W8A8-FP     weight F8_E4M3 (N, K)              weight_scale (N, 1)
    W8A8-INT    weight I8 (N, K)                   weight_scale (N, 1)
    W4A16-INT   weight_packed I32 (N, ceil(K/8))   weight_scale (N, K/G)   weight_shape I64 (2,) = (N, K)
                asymmetric besides: weight_zero_point I32 (ceil(N/8), K/G)

Scales have the model's dtype. Biases and everything that is not quantized are as in the original model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pennyweight.checkpoint.safetensors_file import NAMES, TensorEntry
from pennyweight.errors import CheckpointError
from pennyweight.schemes import Scheme

FLOATS = (torch.bfloat16, torch.float16, torch.float32)
# Written by old versions of transformers, derived from the config, wanted by nobody.
DERIVED = ("rotary_emb.inv_freq",)
HINTS = {
    "weight_g_idx": "columns are reordered at run time (actorder 'group')",
    "input_scale": "activations have static scales",
    "input_zero_point": "activations have static scales",
    "weight_global_scale": "this is a 4-bit float format",
    "k_scale": "the KV cache is quantized",
    "v_scale": "the KV cache is quantized",
}


@dataclass(frozen=True)
class Expected:
    """A tensor that must be there: one of ``dtypes``, exactly ``shape``."""

    dtypes: tuple[torch.dtype, ...]
    shape: tuple[int, ...]


def layer_tensors(scheme: Scheme, n: int, k: int) -> dict[str, Expected]:
    """The tensors of a quantized layer of shape (n, k) without its bias, by their last name."""
    groups = 1 if scheme.group_size < 0 else k // scheme.group_size
    scale = Expected(FLOATS, (n, groups))
    if scheme.weight != "int4":
        code = torch.int8 if scheme.weight == "int8" else torch.float8_e4m3fn
        return {"weight": Expected((code,), (n, k)), "weight_scale": scale}
    tensors = {
        "weight_packed": Expected((torch.int32,), (n, -(-k // 8))),
        "weight_scale": scale,
        "weight_shape": Expected((torch.int64,), (2,)),
    }
    if not scheme.symmetric:
        tensors["weight_zero_point"] = Expected((torch.int32,), (-(-n // 8), groups))
    return tensors


def dense_tensors(model: nn.Module) -> dict[str, Expected]:
    """Every tensor that the checkpoint of ``model`` must hold when none of its layers is quantized."""
    return {name: Expected(FLOATS, tuple(t.shape)) for name, t in model.state_dict(keep_vars=True).items()}


def quantized_tensors(
    model: nn.Module, layers: Mapping[str, nn.Linear], scheme: Scheme
) -> dict[str, Expected]:
    """Every tensor that the checkpoint of ``model`` must hold when ``layers`` are stored in ``scheme``."""
    expected = dense_tensors(model)
    for name, linear in layers.items():
        del expected[f"{name}.weight"]
        for last, tensor in layer_tensors(scheme, linear.out_features, linear.in_features).items():
            expected[f"{name}.{last}"] = tensor
    return expected


def check_groups(layers: Mapping[str, nn.Linear], scheme: Scheme, where: Path | str) -> None:
    """Every layer's K must be a multiple of the group size."""
    ragged = [
        f"{name} (K={x.in_features})"
        for name, x in layers.items()
        if x.in_features % max(scheme.group_size, 1)
    ]
    if ragged:
        raise CheckpointError(
            f"{where}: group_size {scheme.group_size} does not divide K of {', '.join(ragged)}"
        )


def check_tensors(
    found: Mapping[str, TensorEntry], expected: Mapping[str, Expected], optional: set[str], where: Path | str
) -> None:
    """Compare what a folder holds with what its model needs.

    Args:
        found: The checkpoint's tensors.
        expected: What the model needs.
        optional: Names that may be absent: tied to another tensor.
        where: The folder, for the text of errors.
    Raises:
        CheckpointError: tensors are missing, not known to the model, or of another shape or dtype.
    """
    missing = [name for name in expected if name not in found and name not in optional]
    unexpected = [name for name in found if name not in expected and not name.endswith(DERIVED)]
    if missing:
        text = f"{where}: lacks {_some(missing)}"
        raise CheckpointError(text + (f"; it holds {_some(unexpected)} instead" if unexpected else ""))
    if unexpected:
        hint = HINTS.get(unexpected[0].rpartition(".")[2])
        because = f" ({hint})" if hint else ""
        raise CheckpointError(
            f"{where}: holds {_some(unexpected)}, for which the model has no place{because}"
        )
    for name, tensor in expected.items():
        if name in found:
            _check_one(found[name], tensor)


def _check_one(entry: TensorEntry, expected: Expected) -> None:
    if entry.shape != expected.shape:
        raise CheckpointError(
            f"{entry.file}: tensor {entry.name!r} has shape {list(entry.shape)}, "
            f"config.json makes it {list(expected.shape)}"
        )
    if entry.dtype not in expected.dtypes:
        names = " or ".join(NAMES[dtype] for dtype in expected.dtypes)
        raise CheckpointError(
            f"{entry.file}: tensor {entry.name!r} has dtype {NAMES[entry.dtype]}, must be {names}"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more tensors" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def check_finite(tensor: torch.Tensor, name: str, where: Path | str) -> None:
    """Raise CheckpointError when a float tensor (FP8 codes too) holds NaN or Inf, with the first place."""
    if not tensor.dtype.is_floating_point:
        return
    if tensor.dtype is torch.float8_e4m3fn:
        bad = tensor.view(torch.uint8).bitwise_and(0x7F) == 0x7F  # E4M3 has NaN and no Inf
    else:
        bad = ~torch.isfinite(tensor)
    if bad.any():
        first = bad.nonzero()[0].tolist()
        raise CheckpointError(
            f"{where}: tensor {name!r} holds {int(bad.sum())} NaN or Inf, the first at {first}; "
            "the file is damaged or the model diverged: fetch it again"
        )
