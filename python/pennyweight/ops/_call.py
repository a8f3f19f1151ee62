# SPDX-License-Identifier: Apache-2.0
"""The way into C++: loads the operator library, calls an operator, raises its errors as ours."""

import importlib.util
from typing import Any

import torch

from pennyweight import _C
from pennyweight.errors import DeviceError, PennyweightError, ShapeError, UnsupportedError

_TAGS: dict[str, type[Exception]] = {
    "[pw:shape] ": ShapeError,
    "[pw:unsupported] ": UnsupportedError,
    "[pw:memory] ": MemoryError,
    "[pw:device] ": DeviceError,
}


def _load() -> Any:
    spec = importlib.util.find_spec(
        "pennyweight._ops"
    )  # in place, in a wheel, or where an editable install says
    if spec is None or spec.origin is None:
        raise ImportError("pennyweight: its library _ops.so is missing; build it with `pip install .`")
    torch.ops.load_library(spec.origin)
    return torch.ops.pennyweight


_ops = _load()


def call(name: str, *args: Any) -> Any:
    """Calls ``torch.ops.pennyweight.<name>``."""
    try:
        return getattr(_ops, name)(*args)
    except RuntimeError as error:
        if "[pw:interrupted] " in str(error):
            _C.raise_interrupt()
        raise _translated(name, args, error) from None


def _translated(name: str, args: tuple[Any, ...], error: RuntimeError) -> Exception:
    """An error of a torch operator as the class that its tag names; without a tag, as it came."""
    if isinstance(error, PennyweightError):  # of an operator that is written in Python
        return error
    text = str(error)
    for tag, kind in _TAGS.items():
        if tag in text:
            return kind(text.split(tag, 1)[1].split("\nException raised from", 1)[0])
    if isinstance(error, NotImplementedError):  # torch's dispatcher: nothing is registered for such tensors
        places = {f"{t.device.type} {t.layout}" for t in args if isinstance(t, torch.Tensor)}
        got = ", ".join(sorted(places)).replace("torch.", "")
        return UnsupportedError(f"{name}: {_where(name)}; got {got}; use .to('cpu')")
    return error


def _where(name: str) -> str:
    op = _C.ops().get(name)  # none: it is made of several
    cards = " and on cards" if op is not None and op["cuda"] else ""
    return f"kernels run on dense CPU tensors{cards}"
