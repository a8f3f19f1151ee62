# SPDX-License-Identifier: Apache-2.0
"""Kernels broken on purpose: what is changed, and which check must catch it with which words."""

from dataclasses import dataclass


@dataclass
class Broken:
    """One change to one file.

    Attributes:
        name: What is wrong.
        file: In kernels/cuda.
        unit: The .cu to compile anew; ``file`` itself, or one that includes it.
        old: Text that is there exactly once.
        new: What takes its place.
        check: The build that must catch it: none (a wrong result or a deadlock), address or thread.
        says: Words of the failure.
        cases: Which tests are run, part of their names.
        compute: The card.
    """

    name: str
    file: str
    unit: str
    old: str
    new: str
    check: str
    says: str
    cases: str
    compute: str = "80"


RACE = "data race"
OVERFLOW = "heap-buffer-overflow"

DIFFERS = "differ, first at row"
EXPECTED = ", expected "


def int8(
    name: str, old: str, new: str, check: str, says: str, file: str = "gemm_w8a8_int8_sm80.cuh"
) -> Broken:
    """A fault in the INT8 GEMM, shown on its tile of 64 rows."""
    unit = file if file.endswith(".cu") else "gemm_w8a8_int8_sm80_64.cu"
    return Broken(f"gemm_w8a8_int8_{name}", file, unit, old, new, check, says, "gemm_w8a8_int8_tiles")


def w4a16(
    name: str, old: str, new: str, check: str, says: str, file: str = "linear_w4a16_sm80.cuh"
) -> Broken:
    """A fault in the 4-bit linear layer, shown on its tile of 32 tokens of bf16."""
    unit = file if file.endswith(".cu") else "linear_w4a16_sm80_32_bf16.cu"
    return Broken(f"linear_w4a16_{name}", file, unit, old, new, check, says, "linear_w4a16_tiles")


_BARRIER = "__syncthreads();"
_LEFT = "left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0"
_SCALED = "static_cast<float>(sum[i]) * by_row * (there ? e.col_scale[n + i] : 0.0f)"

VARIANTS = [
    int8("without_barrier", _BARRIER, "", "thread", RACE),
    int8("without_barrier_gives_wrong_sums", _BARRIER, "", "none", DIFFERS),
    int8("waits_too_little", "wait_copies<T::stages - 2>", "wait_copies<T::stages - 1>", "none", DIFFERS),
    int8("wrong_fragment", "block * 2 + (lane >> 4)", "block * 2 + (lane >> 3 & 1)", "none", DIFFERS),
    int8(
        "without_swizzle",
        "16 * chunk_of_step(first, chunk);",
        "16 * (first * kStepChunks + chunk);",
        "none",
        DIFFERS,
    ),
    int8("reads_rows_past_m", "row0 + i * at_once < p.m ? bytes : 0", "bytes", "address", OVERFLOW),
    int8("reads_panels_past_n", "panel0 + panel < panels && ", "", "address", OVERFLOW),
    int8("reads_inputs_past_k", _LEFT, "left > 0 ? 16 : 0", "address", OVERFLOW),
    int8("writes_outputs_past_n", "left < 8 ? static_cast<int>(left) : 8;", "8;", "address", OVERFLOW),
    int8(
        "scales_in_another_order",
        _SCALED,
        _SCALED.replace("* by_row * (there", "* (by_row * (there") + ")",
        "none",
        DIFFERS,
        "gemm_w8a8_int8_epilogue.cuh",
    ),
    int8(
        "forgets_a_split",
        "split < p.walk.splits",
        "split < p.walk.splits - 1",
        "none",
        DIFFERS,
        "gemm_w8a8_int8_sm80.cu",
    ),
    w4a16("without_barrier", _BARRIER, "", "thread", RACE),
    w4a16("waits_too_little", "wait_copies<T::stages - 2>", "wait_copies<T::stages - 1>", "none", EXPECTED),
    w4a16(
        "wrong_place_of_inputs",
        "low[2 * mma], high[2 * mma]",
        "high[2 * mma], low[2 * mma]",
        "none",
        EXPECTED,
    ),
    w4a16("wrong_zero_points", "^ 0x08080808u;", "^ 0x00000000u;", "none", EXPECTED),
    w4a16("scales_of_the_next_group", "tail += p.tail_bytes;", "", "none", EXPECTED),
    w4a16("reads_rows_past_m", "row0 + i * at_once < p.m ? bytes : 0", "bytes", "address", OVERFLOW),
    w4a16("reads_panels_past_n", "has_step && panel() + i < all_panels()", "has_step", "address", OVERFLOW),
    w4a16(
        "reads_steps_past_k", "const bool has_step = ", "const bool has_step = true || ", "address", OVERFLOW
    ),
    w4a16("writes_outputs_past_n", "left < 4 ? static_cast<int>(left) : 4;", "4;", "address", OVERFLOW),
    w4a16(
        "forgets_a_split",
        "split < p.walk.splits",
        "split < p.walk.splits - 1",
        "none",
        EXPECTED,
        "linear_w4a16_sm80.cu",
    ),
]
