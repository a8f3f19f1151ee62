# SPDX-License-Identifier: Apache-2.0
"""Quantized linear layers: drop-ins for ``nn.Linear`` whose state dict is a compressed-tensors checkpoint's.

A layer holds one copy of its weight, packed for the kernels in a uint8 buffer, and its scales in float32
(8-bit codes) or inside the packed weight (4-bit codes). Neither follows ``.to(dtype)`` or ``.half()``; the bias does.
``state_dict()`` unpacks to the checkpoint's layout, ``load_state_dict()`` takes that and packs it:

    W8A8-FP    weight float8_e4m3fn (N, K), weight_scale (N, 1)
    W8A8-INT   weight int8 (N, K), weight_scale (N, 1)
    W4A16-INT  weight_packed int32 (N, ceil(K/8)), weight_scale (N, K/G), weight_shape int64 (2,) and, where
               asymmetric, weight_zero_point int32 (ceil(N/8), K/G); nibbles hold code + 8, the lowest first
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pennyweight import ops
from pennyweight.errors import ShapeError
from pennyweight.schemes import Scheme

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
PANEL = 64  # outputs side by side in a packed weight (docs/layouts.md)
_SCALE_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
_DTYPE_NAMES = {dtype: name for name, dtype in _SCALE_DTYPES.items()}


#: A layer as an operator's arguments: scheme, weight, col_scale, scale_dtype, form and bias of `ops.decode_front`.
Operands = tuple[str, Tensor, Tensor | None, str, list[int], Tensor | None]


def _shape(t: Tensor) -> str:
    return f"{list(t.shape)} {str(t.dtype).removeprefix('torch.')}"


class QuantizedLinear(nn.Module):
    """y = x · dequantize(weight)ᵀ + bias, from a weight that stays quantized.

    Attributes:
        scheme: The scheme's name.
        in_features: K.
        out_features: N.
        group_size: Weights along K that share a scale; -1: the whole channel.
        bias: (N,) or None.
        packed: The weight as the kernels read it, uint8.
        in_state_dict: False for a joint weight, whose layers show their own rows of it (fuse/joint.py).
    """

    op: ClassVar[str]  # the operator that forward() calls
    codes_op: ClassVar[str]  # the one for codes that are there already, where the scheme has it
    weight_kind: ClassVar[str]  # Scheme.weight of the schemes this class serves

    packed: Tensor
    bias: nn.Parameter | None

    def __init__(self, scheme: Scheme, in_features: int, out_features: int, bias: Tensor | None) -> None:
        super().__init__()
        self._scheme = scheme
        self.scheme = scheme.name
        self.in_features, self.out_features = in_features, out_features
        self.group_size, self.symmetric = scheme.group_size, scheme.symmetric
        self.scale_dtype = torch.float32  # of weight_scale in the checkpoint
        self.in_state_dict = True
        self.register_buffer("packed", None, persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @staticmethod
    def from_tensors(
        tensors: Mapping[str, Tensor],
        *,
        scheme: Scheme,
        in_features: int,
        out_features: int,
        bias: Tensor | None = None,
    ) -> "QuantizedLinear":
        """Make a layer from tensors in the checkpoint's layout (see the top of this module).

        Args:
            tensors: Exactly the scheme's tensors, by their names in the checkpoint.
            scheme: What they hold.
            in_features: K.
            out_features: N.
            bias: (N,), any float.
        Raises:
            ShapeError: a tensor is missing, too much, or of the wrong shape or dtype.
        """
        layer = _CLASSES[scheme.weight](scheme, in_features, out_features, bias)
        layer._check_bias()
        layer._set_tensors(tensors)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) any float → (..., N), dtype of ``x``."""
        return self.linear(x, self.bias)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """As ``forward``, with another bias (N,) or none."""
        if x.shape[-1] != self.in_features:
            raise ShapeError(f"{self.op}: x must be (..., {self.in_features}); got {_shape(x)}")
        return self._linear(x, bias)

    def dequantize(self) -> Tensor:
        """The weight that the layer stands for, as float32 (N, K)."""
        raise NotImplementedError

    def rows(self, begin: int, count: int) -> "QuantizedLinear":
        """The layer of ``count`` outputs from ``begin``, a multiple of 64, in this one's memory; without bias."""
        layer = type(self)(self._scheme, self.in_features, count, None)
        layer.packed = self._packed_rows(begin, count)
        layer.scale_dtype = self.scale_dtype
        return layer

    def tensors(self) -> dict[str, Tensor]:
        """The weight's tensors in the checkpoint's layout, new each time; the bias is not among them."""
        raise NotImplementedError

    def kernel_args(self, m: int, dtype: torch.dtype) -> dict[str, Any]:
        """What ``_C`` needs to say which implementation runs for M rows of this dtype."""
        n, k, name = self.out_features, self.in_features, _DTYPE_NAMES[dtype]
        return {"m": m, "n": n, "k": k, "x_stride": k, "y_stride": n, "x_dtype": name}

    def codes_args(self, m: int, dtype: torch.dtype) -> dict[str, Any]:
        """As ``kernel_args``, of ``codes_op`` with a result of this dtype."""
        n, k, name = self.out_features, self.in_features, _DTYPE_NAMES[dtype]
        return {"m": m, "n": n, "k": k, "codes_stride": k, "y_stride": n, "y_dtype": name}

    def operands(self, bias: Tensor | None) -> Operands:
        """The layer, with another bias (N,) or none, as `ops.decode_front` and `ops.decode_back` take it."""
        raise NotImplementedError

    def on_codes(self, codes: Tensor, row_scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The layer on activations that are quantized already; 8-bit weights only.

        Args:
            codes: (..., K), int8 or (FP8) uint8.
            row_scale: float32 (..., 1).
            bias: (N,) of ``dtype``, or None; the layer's own is not added.
            dtype: Of the result.
        Returns:
            (..., N): the bits that ``forward`` gives where ``codes`` are those of its input.
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The arguments that ``nn.Linear`` shows, and the scheme."""
        group = "" if self.group_size == -1 else f", group_size={self.group_size}"
        zero = "" if self.symmetric else ", symmetric=False"
        size = (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )
        return f"{size}, scheme={self.scheme}{group}{zero}"

    # ---- for subclasses
    def _linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _expected(self) -> dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]]:
        """Name → shape and allowed dtypes of each tensor in the checkpoint."""
        raise NotImplementedError

    def _pack(self, tensors: Mapping[str, Tensor]) -> None:
        """Take checked tensors into the buffers."""
        raise NotImplementedError

    def _packed_rows(self, begin: int, count: int) -> Tensor:
        """The part of ``packed`` that holds ``count`` outputs from ``begin``, a multiple of 64."""
        panel = self.packed.numel() // -(-self.out_features // PANEL)
        return self.packed[begin // PANEL * panel : -(-(begin + count) // PANEL) * panel]

    def _repacked(self, fn: Callable[..., Any]) -> Tensor | None:
        """``packed`` where ``fn`` moves tensors to, if it lies differently there; None: its bytes are moved."""
        return None

    def _device(self) -> torch.device:
        """Where the weight is."""
        return self.packed.device

    # ---- what nn.Module asks for
    def _check_bias(self) -> None:
        if self.bias is not None and (
            self.bias.shape != (self.out_features,) or self.bias.dtype not in _FLOATS
        ):
            raise ShapeError(
                f"{self.scheme}: bias must be [{self.out_features}], float32, float16 or bfloat16; "
                f"got {_shape(self.bias)}"
            )

    def _check(self, tensors: Mapping[str, Tensor]) -> None:
        expected = self._expected()
        if set(tensors) != set(expected):
            raise ShapeError(f"{self.scheme}: its tensors are {sorted(expected)}; got {sorted(tensors)}")
        for name, (shape, dtypes) in expected.items():
            if tuple(tensors[name].shape) != shape or tensors[name].dtype not in dtypes:
                kinds = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
                raise ShapeError(
                    f"{self.scheme}: {name} must be {list(shape)} {kinds}; got {_shape(tensors[name])}"
                )

    def _set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self._check(tensors)
        self._pack(tensors)
        self.scale_dtype = tensors["weight_scale"].dtype

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "QuantizedLinear":
        """Codes and scales move between devices, and keep their dtypes and values."""
        repacked = self._repacked(fn)
        if repacked is not None:
            self._buffers["packed"] = None
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if repacked is not None:
            self.packed = repacked
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if self.in_state_dict:
            for name, tensor in self.tensors().items():
                destination[prefix + name] = tensor
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        names = self._expected() if self.in_state_dict else {}
        missing = [prefix + name for name in names if prefix + name not in state_dict]
        missing_keys.extend(missing)
        if names and not missing:
            assign = local_metadata.get("assign_to_params_buffers", False)
            given = {name: state_dict[prefix + name] for name in names}
            device = given["weight_scale"].device if assign else self._device()
            try:
                self._set_tensors({name: tensor.to(device) for name, tensor in given.items()})
            except ShapeError as error:
                error_msgs.append(f"{prefix.removesuffix('.') or 'the layer'}: {error}")
        ours = {prefix + name for name in names}
        others = {key: value for key, value in state_dict.items() if key not in ours}
        super()._load_from_state_dict(  # the bias, and keys that nobody expects
            others, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class _Linear8(QuantizedLinear):
    """What FP8 and INT8 share: one float32 scale per output channel, kept beside the codes."""

    scale: Tensor
    codes_dtype: ClassVar[torch.dtype]  # in the checkpoint
    _unpacked_dtype: ClassVar[torch.dtype]  # of the same for operators

    def __init__(self, scheme: Scheme, in_features: int, out_features: int, bias: Tensor | None) -> None:
        super().__init__(scheme, in_features, out_features, bias)
        self.register_buffer("scale", None, persistent=False)

    def _expected(self) -> dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]]:
        n, k = self.out_features, self.in_features
        return {"weight": ((n, k), (self.codes_dtype,)), "weight_scale": ((n, 1), _FLOATS)}

    def rows(self, begin: int, count: int) -> QuantizedLinear:
        """The layer of ``count`` outputs from ``begin``, a multiple of 64, in this one's memory; without bias."""
        layer = super().rows(begin, count)
        assert isinstance(layer, _Linear8)
        layer.scale = self.scale[begin : begin + count]
        return layer

    def operands(self, bias: Tensor | None) -> Operands:
        """The layer, with another bias (N,) or none, as `ops.decode_front` and `ops.decode_back` take it."""
        at: dict[str, Any] = self._buffers  # not by attribute: nn.Module is slow at that
        return self.weight_kind, at["packed"], at["scale"], "", [self.out_features, -1, 0], bias

    def _packed_rows(self, begin: int, count: int) -> Tensor:
        if self.packed.device.type != "cuda":
            return super()._packed_rows(begin, count)
        row = self.packed.numel() // self.out_features
        return self.packed[begin * row : (begin + count) * row]

    def _repacked(self, fn: Callable[..., Any]) -> Tensor | None:
        if self.packed is None:
            return None
        ends = {self.packed.device.type, fn(self.packed.new_empty(0)).device.type}
        if ends != {"cpu", "cuda"}:
            return None
        codes = fn(self._unpack_codes())
        return self._pack_codes(codes.to(self._unpacked_dtype))  # fn may be of the kind that changes dtypes

    def _pack_codes(self, codes: Tensor) -> Tensor:
        """Codes (N, K) as the kernels of their device read them."""
        raise NotImplementedError

    def _unpack_codes(self) -> Tensor:
        """The codes (N, K) in ``packed``."""
        raise NotImplementedError

    def _take_scale(self, scale: Tensor) -> None:
        self.scale = scale.detach().to(torch.float32, copy=True).reshape(self.out_features)

    def _scale(self) -> Tensor:
        return self.scale.to(self.scale_dtype, copy=True).reshape(self.out_features, 1)


class LinearW8A8FP(_Linear8):
    """FP8 (E4M3) weights, activations quantized to FP8 per token."""

    op = "linear_w8a8_fp8"
    codes_op = "gemm_w8a8_fp8"
    weight_kind = "fp8"
    codes_dtype = torch.float8_e4m3fn
    _unpacked_dtype = torch.uint8

    def _linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return ops.linear_w8a8_fp8(x, self.packed, self.scale, bias)

    def on_codes(self, codes: Tensor, row_scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The layer on activations that are quantized already."""
        n = self.out_features
        return ops.gemm_w8a8_fp8(codes, row_scale, self.packed, self.scale, n, bias, dtype)

    def _pack(self, tensors: Mapping[str, Tensor]) -> None:
        self.packed = self._pack_codes(tensors["weight"].detach().view(torch.uint8))
        self._take_scale(tensors["weight_scale"])

    def tensors(self) -> dict[str, Tensor]:
        """The weight's tensors in the checkpoint's layout, new each time; the bias is not among them."""
        return {"weight": self._unpack_codes().view(torch.float8_e4m3fn), "weight_scale": self._scale()}

    def _pack_codes(self, codes: Tensor) -> Tensor:
        return ops.pack_fp8(codes)

    def _unpack_codes(self) -> Tensor:
        return ops.unpack_fp8(self.packed, self.out_features, self.in_features)

    def dequantize(self) -> Tensor:
        """The weight that the layer stands for, as float32 (N, K)."""
        return ops.dequantize_fp8(self.packed, self.scale, self.out_features, self.in_features)


class LinearW8A8INT(_Linear8):
    """INT8 weights, activations quantized to INT8 per token."""

    op = "linear_w8a8_int8"
    codes_op = "gemm_w8a8_int8"
    weight_kind = "int8"
    codes_dtype = _unpacked_dtype = torch.int8

    def _linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return ops.linear_w8a8_int8(x, self.packed, self.scale, bias)

    def on_codes(self, codes: Tensor, row_scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The layer on activations that are quantized already."""
        n = self.out_features
        return ops.gemm_w8a8_int8(codes, row_scale, self.packed, self.scale, n, bias, dtype)

    def _pack(self, tensors: Mapping[str, Tensor]) -> None:
        self.packed = self._pack_codes(tensors["weight"].detach())
        self._take_scale(tensors["weight_scale"])

    def tensors(self) -> dict[str, Tensor]:
        """The weight's tensors in the checkpoint's layout, new each time; the bias is not among them."""
        return {"weight": self._unpack_codes(), "weight_scale": self._scale()}

    def _pack_codes(self, codes: Tensor) -> Tensor:
        return ops.pack_int8(codes)

    def _unpack_codes(self) -> Tensor:
        return ops.unpack_int8(self.packed, self.out_features, self.in_features)

    def dequantize(self) -> Tensor:
        """The weight that the layer stands for, as float32 (N, K)."""
        return ops.dequantize_int8(self.packed, self.scale, self.out_features, self.in_features)


class LinearW4A16(QuantizedLinear):
    """4-bit weights in groups, floating activations.

    Attributes:
        scale_name: "bf16", "f16" or "f32": the narrowest that holds all scales exactly; they are kept in it.
    """

    op = "linear_w4a16"
    weight_kind = "int4"
    scale_name = "f32"

    def rows(self, begin: int, count: int) -> QuantizedLinear:
        """The layer of ``count`` outputs from ``begin``, a multiple of 64, in this one's memory; without bias."""
        layer = super().rows(begin, count)
        assert isinstance(layer, LinearW4A16)
        layer.scale_name = self.scale_name
        return layer

    def _groups(self) -> int:
        if self.group_size == -1:
            return 1
        if self.in_features % self.group_size:
            raise ShapeError(
                f"{self.scheme}: K must be a multiple of group_size; got K={self.in_features}, "
                f"group_size={self.group_size}; use group_size=-1 (one scale per channel), "
                "or leave this layer out with ignore="
            )
        return self.in_features // self.group_size

    def _expected(self) -> dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]]:
        n, k, groups = self.out_features, self.in_features, self._groups()
        expected: dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...]]] = {
            "weight_packed": ((n, (k + 7) // 8), (torch.int32,)),
            "weight_scale": ((n, groups), _FLOATS),
            "weight_shape": ((2,), (torch.int64,)),
        }
        if not self.symmetric:
            expected["weight_zero_point"] = (((n + 7) // 8, groups), (torch.int32,))
        return expected

    def _format(self) -> tuple[int, int, int, str, bool]:
        return self.out_features, self.in_features, self.group_size, self.scale_name, not self.symmetric

    def operands(self, bias: Tensor | None) -> Operands:
        """The layer, with another bias (N,) or none, as `ops.decode_front` and `ops.decode_back` take it."""
        n, _, group_size, scale_name, zero_points = self._format()
        at: dict[str, Any] = self._buffers  # not by attribute: nn.Module is slow at that
        return "int4", at["packed"], None, scale_name, [n, group_size, int(zero_points)], bias

    def _linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        n, _, group_size, scale_name, zero_points = self._format()
        return ops.linear_w4a16(x, self.packed, n, group_size, scale_name, zero_points, bias)

    def _pack(self, tensors: Mapping[str, Tensor]) -> None:
        shape = tensors["weight_shape"]
        if not shape.is_meta and shape.tolist() != [self.out_features, self.in_features]:
            wanted = [self.out_features, self.in_features]
            raise ShapeError(f"{self.scheme}: weight_shape must hold {wanted}; got {shape.tolist()}")
        codes = ops.unpack_nibbles(tensors["weight_packed"].detach(), self.in_features)
        zeros = None
        if not self.symmetric:  # packed along rows, where nibbles are read along columns
            zeros = ops.unpack_nibbles(tensors["weight_zero_point"].detach().T, self.out_features).T
        scale = tensors["weight_scale"].detach()
        self.scale_name = _narrowest(scale)
        self.packed = ops.pack_int4(codes, scale.to(torch.float32), zeros, self.scale_name)

    def tensors(self) -> dict[str, Tensor]:
        """The weight's tensors in the checkpoint's layout, new each time; the bias is not among them."""
        codes, scale, zeros = ops.unpack_int4(self.packed, *self._format())
        shape = torch.tensor(
            [self.out_features, self.in_features], dtype=torch.int64, device=self.packed.device
        )
        tensors = {"weight_packed": ops.pack_nibbles(codes), "weight_scale": scale.to(self.scale_dtype)}
        tensors["weight_shape"] = shape
        if not self.symmetric:
            zero_point = ops.pack_nibbles(zeros.T).T  # (ceil(N/8), K/G)
            tensors["weight_zero_point"] = zero_point.clone(memory_format=torch.contiguous_format)
        return tensors

    def dequantize(self) -> Tensor:
        """The weight that the layer stands for, as float32 (N, K)."""
        return ops.dequantize_int4(self.packed, *self._format())

    def kernel_args(self, m: int, dtype: torch.dtype) -> dict[str, Any]:
        """What ``_C`` needs to say which implementation runs for M rows of this dtype."""
        group = self.in_features if self.group_size == -1 else self.group_size
        more = {"group_size": group, "zero_points": int(not self.symmetric), "scale_dtype": self.scale_name}
        return super().kernel_args(m, dtype) | more


def _narrowest(scale: Tensor) -> str:
    """The narrowest of bf16, f16 and f32 that holds all scales exactly; for a meta tensor, its own dtype."""
    if scale.is_meta or scale.dtype == torch.bfloat16:
        return _DTYPE_NAMES[scale.dtype]
    exact = scale.to(torch.float32)
    return next(
        (n for n, t in _SCALE_DTYPES.items() if torch.equal(exact.to(t).to(torch.float32), exact)), "f32"
    )


_CLASSES: dict[str, type[QuantizedLinear]] = {
    c.weight_kind: c for c in (LinearW8A8FP, LinearW8A8INT, LinearW4A16)
}
