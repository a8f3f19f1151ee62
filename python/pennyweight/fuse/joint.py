# SPDX-License-Identifier: Apache-2.0
"""Quantized layers that read the same rows, as one packed weight and one call.

    q_proj ┐                        panels of 64 outputs
    k_proj ├─▶ joint layer  ┌───┬───┬───┬───┬───┬───┐   y = joint(x), (..., 64 · panels)
    v_proj ┘                │ q │ q │ q │ k │ k │ v │   a layer's last panel is filled up with zeros
                            └───┴───┴───┴───┴───┴───┘

Each layer leaves a `Part` in its place: it holds no weight, shows its own rows of the joint one in the
checkpoint's layout (so that a state dict, and what is saved, are what they were), and called with the joint
output gives its own columns of it. Nothing is kept from one call to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pennyweight.errors import ShapeError
from pennyweight.layers import PANEL, QuantizedLinear


class Part(QuantizedLinear):
    """What stands in the place of a layer whose weight is among those of a joint layer.

    Attributes:
        begin: Its first column of the joint output.
        width: Columns of the joint output.
    """

    def __init__(self, layer: QuantizedLinear, joint: QuantizedLinear, begin: int) -> None:
        super().__init__(layer._scheme, layer.in_features, layer.out_features, layer.bias)
        self.begin, self.width = begin, joint.out_features
        self.scale_dtype = layer.scale_dtype
        self._joint = (joint,)  # in a tuple: it is a module of the block, not of each part

    @property
    def joint(self) -> QuantizedLinear:
        """The layer that holds this one's weight."""
        return self._joint[0]

    def forward(self, x: Tensor) -> Tensor:
        """The joint output (..., width) → this layer's columns of it, (..., N)."""
        if x.shape[-1] != self.width:
            raise ShapeError(
                f"{self.scheme}: this layer is computed together with others (fuse=True) and takes their joint "
                f"output (..., {self.width}); got {list(x.shape)}; load the model with fuse=False to call it alone"
            )
        return x[..., self.begin : self.begin + self.out_features]

    def alone(self) -> QuantizedLinear:
        """The layer that this one was, without bias, on the joint layer's memory."""
        layer = self.joint.rows(self.begin, self.out_features)
        layer.scale_dtype = self.scale_dtype
        return layer

    def tensors(self) -> dict[str, Tensor]:
        """The weight's tensors in the checkpoint's layout, new each time; the bias is not among them."""
        return self.alone().tensors()

    def dequantize(self) -> Tensor:
        """The weight that the layer stands for, as float32 (N, K)."""
        return self.alone().dequantize()

    def extra_repr(self) -> str:
        """As the layer's, and where it is computed."""
        return f"{super().extra_repr()}, columns {self.begin}.. of {self.width} computed together"

    def _device(self) -> torch.device:
        return self._joint[0].packed.device

    def _expected(self) -> dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]]:
        return self.alone()._expected()

    def _pack(self, tensors: Mapping[str, Tensor]) -> None:
        """Pack the joint weight anew, with these rows in it."""
        joint, device = self._joint[0], tensors["weight_scale"].device
        whole = joint.tensors() if joint.packed.device == device else _zeros(joint, device)
        for name, rows in _rows(tensors).items():
            begin = self.begin * rows.shape[0] // _padded(self.out_features)
            whole[name][begin : begin + rows.shape[0]] = rows
        joint._set_tensors(whole)


def join(layers: Sequence[QuantizedLinear]) -> tuple[QuantizedLinear, list[Part]]:
    """Join layers of one scheme and one K.

    Returns:
        The joint layer, without bias and absent from state dicts, and for each layer what takes its place.
    """
    first = layers[0]
    rows = [_rows(layer.tensors()) for layer in layers]
    whole = {name: torch.cat([r[name] for r in rows]) for name in rows[0]}
    n = int(whole["weight_scale"].shape[0])
    if "weight_packed" in whole:
        whole["weight_shape"] = torch.tensor([n, first.in_features])
    joint = QuantizedLinear.from_tensors(
        whole, scheme=first._scheme, in_features=first.in_features, out_features=n
    )
    joint.in_state_dict = False
    joint.train(first.training)
    begins = [0]
    for layer in layers:
        begins.append(begins[-1] + _padded(layer.out_features))
    parts = [Part(layer, joint, begin) for layer, begin in zip(layers, begins, strict=False)]
    return joint, parts


def joint_bias(parts: Sequence[Part]) -> Tensor | None:
    """The biases of parts as the joint layer takes them: (64 · panels,), or None where there are none."""
    pieces = []
    for part in parts:
        if part.bias is None:
            return None
        pieces.append(part.bias.data)
        if fill := _padded(part.out_features) - part.out_features:
            pieces.append(part.bias.new_zeros(fill))
    return torch.cat(pieces)


def _padded(n: int) -> int:
    return -(-n // PANEL) * PANEL


def _rows(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer's tensors filled up with zeros to whole panels, scales in float32; without its shape."""
    found = {}
    for name, tensor in tensors.items():
        if name == "weight_shape":
            continue
        unit = PANEL // 8 if name == "weight_zero_point" else PANEL  # eight zero points in a word
        filled = tensor.new_zeros((-(-tensor.shape[0] // unit) * unit, *tensor.shape[1:]))
        filled[: tensor.shape[0]] = tensor
        found[name] = filled.float() if name == "weight_scale" else filled
    return found


def _zeros(joint: QuantizedLinear, device: torch.device) -> dict[str, Tensor]:
    """The tensors of a joint layer that holds nothing yet: a model from the meta device is being loaded."""
    found = {
        name: torch.zeros(shape, dtype=dtypes[0], device=device)
        for name, (shape, dtypes) in joint._expected().items()
    }
    if "weight_shape" in found:
        found["weight_shape"] = torch.tensor([joint.out_features, joint.in_features], device=device)
    return found
