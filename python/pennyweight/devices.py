# SPDX-License-Identifier: Apache-2.0
"""Where work is done: on the CPU, or on a card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pennyweight import _C
from pennyweight.errors import DeviceError, UnsupportedError


def as_device(device: torch.device | str | None, where: str) -> torch.device | None:
    """Return a device that kernels were built for and that can be used; a card always with its number.

    Args:
        device: "cpu", "cuda", "cuda:1", a torch.device, or None, which is returned.
        where: Who asks, for the error's text.
    Raises:
        UnsupportedError: No such kind of device, or this build has no kernels for it.
        DeviceError: The card or its driver is missing, or torch has no CUDA.
    """
    if device is None:
        return None
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UnsupportedError(f"{where}: {device!r} is not a device; use 'cpu' or 'cuda'") from None
    if found.type == "cpu":
        return torch.device("cpu")
    if found.type != "cuda":
        raise UnsupportedError(f"{where}: there are kernels for the CPU and for cuda; got device={found}")
    if not _C.cuda()["built"]:
        raise UnsupportedError(
            f"{where}: this build has kernels for the CPU alone; got device={found}; build it where nvcc is"
        )
    index = found.index if found.index is not None else 0
    try:
        _C.card(index)
    except ValueError as error:  # no driver, no such card, nothing built for it
        raise DeviceError(f"{where}: device={found}: {error}") from None
    if not torch.cuda.is_available():
        raise DeviceError(
            f"{where}: device={found}: torch {torch.__version__} has no CUDA; install a CUDA build of it"
        )
    return torch.device("cuda", index if found.index is not None else torch.cuda.current_device())


@contextmanager
def visiting(module: nn.Module, device: torch.device) -> Iterator[dict[Tensor, Tensor]]:
    """Have a module's parameters and buffers on another device for a while.

    What was not changed there is put back as it was, without a copy; what was changed, and what came into the
    module meanwhile, moves to where the module is at home.

    Args:
        module: All of it on one device.
        device: Where to; where the module is already, nothing happens.
    Yields:
        The data that each parameter and buffer had at home.
    """
    tensors = [*module.parameters(), *module.buffers()]
    homes = {tensor: tensor.data for tensor in tensors if tensor.device != device}
    if not homes:
        yield homes
        return
    home = next(iter(homes.values())).device
    visitors = {tensor: data.to(device) for tensor, data in homes.items()}
    try:
        for tensor, visitor in visitors.items():
            tensor.data = visitor
        yield homes
    finally:
        for tensor, data in homes.items():
            same = tensor.data_ptr() == visitors[tensor].data_ptr()
            tensor.data = data if same else tensor.data.to(home)
        nn.Module.to(module, home)
