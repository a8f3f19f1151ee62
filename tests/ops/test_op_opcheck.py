# SPDX-License-Identifier: Apache-2.0
"""torch's own checks of every operator: schema, fake tensors, autograd registration, tracing."""

from __future__ import annotations

import pytest
import torch

import pennyweight as pw
from pennyweight import _C


@pytest.mark.parametrize("op", pw.testing.operators())
def test_op_passes_opcheck(op: str) -> None:
    for args, kwargs in pw.testing.sample_inputs(op):
        torch.library.opcheck(getattr(torch.ops.pennyweight, op).default, args, kwargs)


def test_every_op_of_the_kernel_library_is_a_torch_operator_with_samples() -> None:
    composed = {"decode_front", "decode_back"}  # of ops of the library
    assert set(pw.testing.operators()) == set(_C.ops()) | composed == set(pw.ops.__all__)


def test_sample_inputs_takes_names_functions_and_operators() -> None:
    packet = torch.ops.pennyweight.pack_int8
    for op in ("pack_int8", "pennyweight::pack_int8", pw.ops.pack_int8, packet, packet.default):
        assert len(pw.testing.sample_inputs(op)) == 1
    with pytest.raises(pw.UnsupportedError, match="did you mean pack_int8"):
        pw.testing.sample_inputs("pack_int9")


def test_sample_inputs_are_the_same_each_time_and_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, two = (pw.testing.sample_inputs("gemm_w8a8_int8")[0][0][0] for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
