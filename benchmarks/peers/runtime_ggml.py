# SPDX-License-Identifier: Apache-2.0
"""ggml's matrix product, from the libraries that llama-cpp-python brings. Activations and results are float32.

Blocks of 32 (Q4_0, Q8_0) or 256 (Q4_K) weights; activations are quantized to INT8 inside. A weight goes into the buffer
that ggml would repack it into, where it has one for the type on this processor.
"""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from worker import Peer

F32, Q4_0, Q8_0, Q4_K, BF16 = 0, 2, 8, 12, 30


class InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class ThreadpoolParams(ctypes.Structure):
    _fields_ = (("cpumask", c_bool * 512), ("n_threads", c_int), ("prio", c_int), ("poll", c_uint32),
                ("strict_cpu", c_bool), ("paused", c_bool))  # fmt: skip


def _library() -> Any:
    """Load ggml; each function's types, since ctypes knows none."""
    spec = importlib.util.find_spec("llama_cpp")  # found, not imported: it would load llama.cpp and print
    assert spec is not None and spec.origin is not None
    code = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml.so"), mode=ctypes.RTLD_GLOBAL)
    p = c_void_p
    for name, result, *arguments in (
        ("ggml_backend_cpu_init", p),
        ("ggml_backend_cpu_set_n_threads", None, p, c_int),
        ("ggml_backend_cpu_set_threadpool", None, p, p),
        ("ggml_backend_cpu_buffer_type", p),
        ("ggml_threadpool_params_default", ThreadpoolParams, c_int),
        ("ggml_threadpool_new", p, POINTER(ThreadpoolParams)),
        ("ggml_backend_get_device", p, p),
        ("ggml_backend_dev_backend_reg", p, p),
        ("ggml_backend_reg_get_proc_address", p, p, c_char_p),
        ("ggml_backend_dev_supports_op", c_bool, p, p),
        ("ggml_init", p, InitParams),
        ("ggml_free", None, p),
        ("ggml_new_tensor_2d", p, p, c_int, c_int64, c_int64),
        ("ggml_mul_mat", p, p, p, p),
        ("ggml_nbytes", c_size_t, p),
        ("ggml_get_data", p, p),
        ("ggml_new_graph", p, p),
        ("ggml_build_forward_expand", None, p, p),
        ("ggml_backend_alloc_ctx_tensors", p, p, p),
        ("ggml_backend_alloc_ctx_tensors_from_buft", p, p, p),
        ("ggml_backend_buffer_free", None, p),
        ("ggml_backend_tensor_set", None, p, p, c_size_t, c_size_t),
        ("ggml_backend_graph_compute", c_int, p, p),
        ("ggml_quantize_init", None, c_int),
        ("ggml_quantize_chunk", c_size_t, c_int, p, p, c_int64, c_int64, c_int64, p),
    ):
        function = getattr(code, name)
        function.restype, function.argtypes = result, arguments
    return code


ggml = _library()
_backend: Any = None


def start(threads: int) -> None:
    """Make the backend and its threads."""
    global _backend
    _backend = ggml.ggml_backend_cpu_init()
    ggml.ggml_backend_cpu_set_n_threads(_backend, threads)
    params = ggml.ggml_threadpool_params_default(threads)
    ggml.ggml_backend_cpu_set_threadpool(_backend, ggml.ggml_threadpool_new(ctypes.byref(params)))


class Context:
    """A ggml context, and the memory of its tensors."""

    def __init__(self) -> None:
        self.pointer = ggml.ggml_init(InitParams(1 << 20, None, True))
        self.buffer: Any = None

    def place(self, buffer_type: Any = None) -> bool:
        """Give the tensors memory, of a buffer type or the backend's own."""
        if buffer_type:
            self.buffer = ggml.ggml_backend_alloc_ctx_tensors_from_buft(self.pointer, buffer_type)
        else:
            self.buffer = ggml.ggml_backend_alloc_ctx_tensors(self.pointer, _backend)
        return bool(self.buffer)

    def __del__(self) -> None:
        if self.buffer:
            ggml.ggml_backend_buffer_free(self.buffer)
        ggml.ggml_free(self.pointer)


def repacking_buffer(kind: int, n: int, k: int) -> Any:
    """Return the first special buffer type that takes a product with such a weight, or None."""
    device = ggml.ggml_backend_get_device(_backend)
    registry = ggml.ggml_backend_dev_backend_reg(device)
    listed = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
    if not listed:
        return None
    types = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(listed)(device)
    index = 0
    while types[index]:
        context = Context()
        weight = ggml.ggml_new_tensor_2d(context.pointer, kind, k, n)
        if context.place(types[index]):
            x = ggml.ggml_new_tensor_2d(context.pointer, F32, k, 4)
            product = ggml.ggml_mul_mat(context.pointer, weight, x)
            if ggml.ggml_backend_dev_supports_op(device, product):
                return types[index]
        index += 1
    return None


class Weight:
    """A weight (N, K) in one of ggml's types."""

    def __init__(self, weight: np.ndarray, kind: int) -> None:
        self.shape = n, k = weight.shape
        source = np.ascontiguousarray(weight, np.float32)
        self.context = Context()
        self.tensor = ggml.ggml_new_tensor_2d(self.context.pointer, kind, k, n)
        self.bytes = int(ggml.ggml_nbytes(self.tensor))
        self.context.place(repacking_buffer(kind, n, k) or ggml.ggml_backend_cpu_buffer_type())
        codes = source
        if kind != F32:
            codes = np.empty(self.bytes, np.uint8)
            ggml.ggml_quantize_init(kind)
            ggml.ggml_quantize_chunk(kind, source.ctypes.data, codes.ctypes.data, 0, n, k, None)
        ggml.ggml_backend_tensor_set(self.tensor, codes.ctypes.data, 0, self.bytes)


class Product:
    """The graph y = x · Wᵀ for given activations (M, K)."""

    def __init__(self, weight: Weight, x: np.ndarray) -> None:
        (n, k), m = weight.shape, len(x)
        self.weight, self.context = weight, Context()
        source = ggml.ggml_new_tensor_2d(self.context.pointer, F32, k, m)
        result = ggml.ggml_mul_mat(self.context.pointer, weight.tensor, source)
        self.graph = ggml.ggml_new_graph(self.context.pointer)
        ggml.ggml_build_forward_expand(self.graph, result)
        self.context.place()
        view = lambda t, *shape: np.ctypeslib.as_array(  # noqa: E731
            ctypes.cast(ggml.ggml_get_data(t), POINTER(ctypes.c_float)), shape
        )
        self.x, self.y = view(source, m, k), view(result, m, n)
        self.x[:] = x

    def compute(self) -> np.ndarray:
        """Run it, into ``y``."""
        if ggml.ggml_backend_graph_compute(_backend, self.graph) != 0:
            raise RuntimeError("ggml_backend_graph_compute failed")
        return self.y


def prepare(weight: np.ndarray, kind: int) -> Peer:
    """Quantize a weight to one of ggml's types."""
    prepared = Weight(weight, kind)
    take, call = partial(Product, prepared), Product.compute
    return Peer(prepared.bytes, take, call, np.asarray, lambda product: product.x.sum())


PEERS = {
    "ggml_bf16": partial(prepare, kind=BF16),
    "ggml_q8_0": partial(prepare, kind=Q8_0),
    "ggml_q4_0": partial(prepare, kind=Q4_0),
    "ggml_q4_K": partial(prepare, kind=Q4_K),
}
