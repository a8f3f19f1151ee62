# SPDX-License-Identifier: Apache-2.0
"""A card for a torch without CUDA (fake_card.cpp), for scripts that test_torch_ops.py runs.

Their arguments: libpennyweight_kernels.so, what stands for torch's CUDA half, the fake card, its compute capability.
The emulated CUDA half of the kernel library is preloaded, so that it is found before the half that was built. Imported
before torch, which asks once whether there is an accelerator.
"""

import ctypes
import sys
from typing import Any

_KERNELS, _TORCH_CUDA, _CARD, _COMPUTE = sys.argv[1:]


class State(ctypes.Structure):
    """What the fake card knows: the current device, open guards, each device's stream."""

    _fields_ = [("device", ctypes.c_int32), ("guards", ctypes.c_int32), ("streams", ctypes.c_void_p * 2)]


ctypes.CDLL(_KERNELS, ctypes.RTLD_GLOBAL)  # what the preloaded half asks of the other
emulated = ctypes.CDLL(None)
emulated.pw_last_stream.restype = ctypes.c_void_p
emulated.pw_emulate(int(_COMPUTE))
state = State.in_dll(ctypes.CDLL(_TORCH_CUDA, ctypes.RTLD_GLOBAL), "pw_fake_state")
ctypes.CDLL(_CARD)

import torch  # noqa: E402

torch.cuda._lazy_init = lambda: None  # what `.to("cuda")` asks first
torch.cuda.is_available = lambda: True
torch.cuda.current_device = lambda: state.device


def card(t: torch.Tensor | None, device: int = 1) -> torch.Tensor | None:
    """A copy of a tensor on the fake card."""
    return None if t is None else torch.ops.pw_fake.to_card(t.contiguous(), device)


def host(t: torch.Tensor) -> torch.Tensor:
    """A copy of a fake card's tensor on the CPU."""
    return torch.ops.pw_fake.to_host(t)


def run(tests: dict[str, Any]) -> None:
    """Run every function whose name begins with test_, in order."""
    for name, test in tests.items():
        if name.startswith("test_"):
            test()
            print("ok", name, flush=True)
