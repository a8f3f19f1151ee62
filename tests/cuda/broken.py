# SPDX-License-Identifier: Apache-2.0
"""Kernels broken on purpose: what is changed, and which check must catch it with which words."""

from collections.abc import Callable
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


def shown_on(op: str, kernel: str, tile: str, compute: str = "80") -> Callable[..., Broken]:
    """Faults in one kernel, or in a file that it includes, shown on one of its tiles."""

    def fault(
        name: str,
        old: str,
        new: str,
        check: str,
        says: str,
        file: str = kernel,
        cases: str = f"{op}_tiles",
        unit: str = tile,
    ) -> Broken:
        unit = file if file.endswith(".cu") else unit
        return Broken(f"{op}_{name}", file, unit, old, new, check, says, cases, compute)

    return fault


int8 = shown_on("gemm_w8a8_int8", "gemm_w8a8_sm80.cuh", "gemm_w8a8_sm80_int8_64.cu")
fp8 = shown_on("gemm_w8a8_fp8", "gemm_w8a8_sm80.cuh", "gemm_w8a8_sm80_e4m3_64_exact.cu", "89")
w8a16 = shown_on("linear_w8a16", "linear_w8a16_sm80.cuh", "linear_w8a16_sm80_16_bf16.cu")
w4a16 = shown_on("linear_w4a16", "linear_w4a16_sm80.cuh", "linear_w4a16_sm80_32_bf16.cu")

_RING, _SHARED, _EPILOGUE, _HALVES, _DECODE = (
    "tile/ring.cuh",
    "tile/shared.cuh",
    "tile/epilogue.cuh",
    "tile/halves.cuh",
    "decode_e4m3.cuh",
)
_PARTS = "add_splits_sm80.cu"


def pack(name: str, file: str, old: str, new: str, check: str, cases: str, says: str = DIFFERS) -> Broken:
    """A fault in packing; ``file`` is a .cu, or the header of the .cu that has the cases."""
    unit = "pack_code_rows_sm80.cu" if cases.startswith("pack_code") else "pack_int4_sm80.cu"
    return Broken(f"pack_{name}", file, unit, old, new, check, says, cases)


def hessian(name: str, old: str, new: str, check: str, says: str, file: str = "") -> Broken:
    """A fault in the Hessian, shown on both types' parts, or on float32 pieces."""
    file = file or "hessian_accumulate_sm80.cuh"
    unit = file if file.endswith(".cu") else "hessian_accumulate_sm80_bf16.cu"
    return Broken(f"hessian_{name}", file, unit, old, new, check, says, "hessian_accumulate_")


def calibrate(
    name: str, file: str, old: str, new: str, check: str, says: str, cases: str, unit: str = ""
) -> Broken:
    """A fault in what finds weights: GPTQ, scales, rounding, columns."""
    return Broken(name, file, unit or file, old, new, check, says, cases)


def sm90(
    name: str, file: str, old: str, new: str, check: str, says: str, cases: str, unit: str = ""
) -> Broken:
    """A fault in what chooses and launches the GEMMs of Hopper, or comes before them."""
    unit = unit or file
    return Broken(f"sm90_{name}", file, unit, old, new, check, says, cases, "90")


_BARRIER = "__syncthreads();"
_LEFT = "if (left >= 16)"
_SCALED = """ v[i] *= by_row;
  }
#pragma unroll
  for (int i = 0; i < wide; ++i) {
    if (e.col_scale) v[i] *= i < count ? e.col_scale[n + i] : 0.0f;"""
_ROWS = "return more < there;"

VARIANTS = [
    int8("without_barrier", _BARRIER, "", "thread", RACE, _RING),
    int8("without_barrier_gives_wrong_sums", _BARRIER, "", "none", DIFFERS, _RING),
    int8("waits_too_little", "wait_copies<stages - 2>", "wait_copies<stages - 1>", "none", DIFFERS, _RING),
    int8("wrong_fragment", "block * 2 + (lane >> 4)", "block * 2 + (lane >> 3 & 1)", "none", DIFFERS),
    int8("wrong_half_of_the_weight", "block * 2 + half", "block * 2 + 1 - half", "none", DIFFERS),
    int8("outputs_in_order", "{ return output_of_row(row); }", "{ return row; }", "none", DIFFERS, _SHARED),
    int8(
        "without_swizzle",
        "16 * Layout::place(first, chunk);",
        "16 * (first * chunks + chunk);",
        "none",
        DIFFERS,
        _SHARED,
    ),
    int8("reads_rows_past_m_and_n", _ROWS, "return true;", "address", OVERFLOW, _SHARED),
    int8("reads_outputs_past_n", "p.n, p.k, ", "p.n + T::BN, p.k, ", "address", OVERFLOW),
    int8("reads_inputs_past_k", _LEFT, "if (left > 0)", "address", OVERFLOW, _SHARED),
    int8("writes_outputs_past_n", "left < 8 ? static_cast<int>(left) : 8;", "8;", "address", OVERFLOW),
    int8(
        "scales_in_another_order",
        _SCALED,
        _SCALED.replace("v[i] *= by_row", "v[i] *= 1.0f").replace(
            "e.col_scale[n + i]", "e.col_scale[n + i] * e.row_scale[row]"
        ),
        "none",
        DIFFERS,
        _EPILOGUE,
    ),
    int8("forgets_a_split", "split < p.walk.splits", "split < p.walk.splits - 1", "none", DIFFERS, _PARTS),
    fp8("without_barrier", _BARRIER, "", "thread", RACE, _RING),
    fp8("wrong_half_of_the_weight", "block * 2 + half", "block * 2 + 1 - half", "none", DIFFERS),
    fp8("keeps_what_it_promoted", "part[i][j][c] = 0;", "", "none", DIFFERS),
    fp8(
        "forgets_the_last_inputs",
        "    block.promote(part, acc);\n  } else",
        "  } else",
        "none",
        DIFFERS,
    ),
    fp8("reads_inputs_past_k", _LEFT, "if (left > 0)", "address", OVERFLOW, _SHARED),
    fp8("forgets_a_split", "split < p.walk.splits", "split < p.walk.splits - 1", "none", DIFFERS, _PARTS),
    fp8(
        "asks_for_too_little_workspace",
        "return scales_at(op, card) + op.m * 4;",
        "return scales_at(op, card);",
        "address",
        OVERFLOW,
        "linear_w8a8.h",
        "linear_w8a8_fp8_is_quantization",
        "linear_w8a8_sm80.cu",
    ),
    w8a16("without_barrier", _BARRIER, "", "thread", RACE, _RING),
    w8a16("wrong_codes", "(t & 1) * 8", "(t & 2) * 4", "none", EXPECTED),
    w8a16("outputs_in_order", "{ return output_of_row(row); }", "{ return row; }", "none", EXPECTED, _SHARED),
    w8a16("wrong_power_of_two", "0x7b807b80u", "0x7b007b00u", "none", EXPECTED, _DECODE),
    w8a16(
        "loses_signs",
        "or_nan, high, 0x80008000u), 0x7b",
        "or_nan, high, 0u), 0x7b",
        "none",
        EXPECTED,
        _DECODE,
    ),
    w8a16("loses_nan", "0x08000800u) * 15", "0x08000800u) * 0", "none", " is ", _DECODE, "linear_w8a16_nan"),
    w8a16("reads_outputs_past_n", "p.n, p.k, ", "p.n + T::BN, p.k, ", "address", OVERFLOW),
    w8a16("reads_inputs_past_k", _LEFT, "if (left > 0)", "address", OVERFLOW, _SHARED),
    w8a16(
        "decodes_codes_past_k",
        "if (i + 4 < left)",
        "if (i < left)",
        "address",
        OVERFLOW,
        "linear_w8a16_sm80.cu",
        "gemm_w8a8_fp8_shapes",
    ),
    w8a16(
        "decodes_unaligned_codes_at_once",
        "if (vector && left >= 8)",
        "if (left >= 8)",
        "address",
        "misaligned",
        "linear_w8a16_sm80.cu",
        "linear_w8a8_fp8_is_quantization",
    ),
    w4a16("without_barrier", _BARRIER, "", "thread", RACE, _RING),
    w4a16("waits_too_little", "wait_copies<stages - 2>", "wait_copies<stages - 1>", "none", EXPECTED, _RING),
    w4a16(
        "wrong_place_of_inputs",
        "low[2 * mma], high[2 * mma]",
        "high[2 * mma], low[2 * mma]",
        "none",
        EXPECTED,
        _HALVES,
    ),
    w4a16("wrong_zero_points", "^ 0x08080808u;", "^ 0x00000000u;", "none", EXPECTED),
    w4a16("scales_of_the_next_group", "tail += p.tail_bytes;", "", "none", EXPECTED),
    w4a16("reads_rows_past_m", _ROWS, "return true;", "address", OVERFLOW, _SHARED),
    w4a16("reads_panels_past_n", "has_step && panel() + i < all_panels()", "has_step", "address", OVERFLOW),
    w4a16(
        "reads_steps_past_k", "const bool has_step = ", "const bool has_step = true || ", "address", OVERFLOW
    ),
    w4a16(
        "writes_outputs_past_n",
        "left < 4 ? static_cast<int>(left) : 4;",
        "4;",
        "address",
        OVERFLOW,
        _HALVES,
    ),
    w4a16("forgets_a_split", "split < p.walk.splits", "split < p.walk.splits - 1", "none", EXPECTED, _PARTS),
    pack(
        "code_rows_without_padding",
        "pack_code_rows_sm80.cu",
        "p.pads ? 16 : count",
        "count",
        "none",
        "pack_code_rows_int8",
    ),
    pack(
        "code_rows_takes_any_row_for_aligned",
        "pack_code_rows_sm80.cu",
        "p.from_vector = pieces_aligned(p.from, p.from_stride, 16);",
        "p.from_vector = true;",
        "address",
        "pack_code_rows_int8",
        "misaligned address",
    ),
    pack(
        "code_rows_reads_past_a_row",
        "tile/bytes.cuh",
        "    if (i < count) word[i / 4] |= ",
        "    word[i / 4] |= ",
        "address",
        "pack_code_rows_int8",
        OVERFLOW,
    ),
    pack(
        "int4_in_the_checkpoints_order",
        "pack_int4_sm80.cu",
        "panel_order(word_of_codes(bytes))",
        "word_of_codes(bytes)",
        "none",
        "pack_int4_panels",
    ),
    pack(
        "int4_leaves_rows_past_n_as_they_were",
        "pack_int4_sm80.cu",
        "    words.word[i] = kNoCodes;\n",
        "    words.word[i] = 0;\n",
        "none",
        "pack_int4_panels",
    ),
    pack(
        "int4_reads_rows_past_n",
        "pack_int4_sm80.cu",
        "    if (spot.row + i >= w.n) continue;\n",
        "",
        "address",
        "pack_int4_panels",
        OVERFLOW,
    ),
    pack(
        "int4_writes_rows_past_n",
        "pack_int4_sm80.cu",
        "    if (spot.row + i >= w.n) break;\n    const float offset",
        "    const float offset",
        "address",
        "pack_int4_panels",
        OVERFLOW,
    ),
    pack(
        "int4_forgets_zero_points",
        "pack_int4_sm80.cu",
        "+ 8 + zero[i]);",
        "+ 8);",
        "none",
        "pack_int4_panels",
    ),
    pack(
        "nibbles_of_padding_are_codes",
        "pack_int4_sm80.cu",
        "word_of_codes(bytes) & there",
        "word_of_codes(bytes)",
        "none",
        "pack_nibble_words",
    ),
    pack(
        "nibbles_lose_their_sign",
        "tile/int4.cuh",
        "* 0x1eu;",
        "* 0x0eu;",
        "none",
        "pack_nibble_words",
    ),
    hessian("without_barrier", _BARRIER, "", "thread", RACE, "tile/ring.cuh"),
    hessian(
        "waits_too_little",
        "wait_copies<stages - 2>",
        "wait_copies<stages - 1>",
        "none",
        EXPECTED,
        "tile/ring.cuh",
    ),
    hessian("wrong_fragment", "i * 2 + (lane >> 3 & 1)", "i * 2 + (lane >> 4 & 1)", "none", EXPECTED),
    hessian(
        "without_swizzle",
        "to += 16 * Rows<T::chunks>::place(first, chunk);",
        "to += 16 * (first * T::chunks + chunk);",
        "none",
        EXPECTED,
    ),
    hessian("reads_tokens_past_t", "< p.t ? bytes : 0", "< p.t + 1 ? bytes : 0", "address", OVERFLOW),
    hessian(
        "reads_columns_past_k",
        "left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0",
        "left > 0 ? 16 : 0",
        "address",
        OVERFLOW,
    ),
    hessian(
        "has_offsets_of_32_bits",
        "(token + first) * p.stride + column",
        "(static_cast<int>((token + first) * p.stride) & 0x3fffffff) + column",
        "none",
        EXPECTED,
    ),
    hessian(
        "writes_above_the_diagonal",
        "row0 + row < p.k && column0 + column <= row0 + row",
        "row0 + row < p.k && column0 + column < p.k",
        "none",
        "wrote above the diagonal",
    ),
    hessian("keeps_sums_of_a_run", "            sum = 0.0f;\n", "", "none", EXPECTED),
    hessian("mixes_up_pieces", "kPassLeft >> (4 * pass)", "kPassRight >> (4 * pass)", "none", EXPECTED),
    hessian(
        "forgets_a_part",
        "split < p.splits; ++split",
        "split < p.splits - 1; ++split",
        "none",
        EXPECTED,
        "hessian_accumulate_sm80.cu",
    ),
    hessian(
        "pieces_do_not_add_up",
        "left[j] -= taken[j];",
        "left[j] = 0.0f;",
        "none",
        EXPECTED,
        "hessian_accumulate_sm80.cu",
    ),
    calibrate("gptq_columns_without_barrier", "gptq_columns_sm80.cu", _BARRIER, "", "thread", RACE, "gptq_"),
    calibrate(
        "gptq_columns_hands_on_the_error_of_another",
        "gptq_columns_sm80.cu",
        "__shfl_sync(kFullWarp, mine, l)",
        "__shfl_sync(kFullWarp, mine, l ^ 1)",
        "none",
        DIFFERS,
        "gptq_columns_shapes",
    ),
    calibrate(
        "gptq_columns_forgets_earlier_blocks",
        "gptq_columns_sm80.cu",
        "row.sum[s] = there ? p.sums[at + 32 * s] : 0.0f;",
        "row.sum[s] = 0.0f;",
        "none",
        DIFFERS,
        "gptq_columns_shapes",
    ),
    calibrate(
        "gptq_columns_reads_past_k",
        "gptq_columns_sm80.cu",
        "row.sum[s] = there ? p.sums[at + 32 * s] : 0.0f;",
        "row.sum[s] = p.sums[at + 32 * s];",
        "address",
        OVERFLOW,
        "gptq_columns_shapes",
    ),
    calibrate(
        "gptq_columns_writes_past_k",
        "gptq_columns_sm80.cu",
        "      if (lane + 32 * s >= count) continue;\n",
        "",
        "address",
        OVERFLOW,
        "gptq_columns_shapes",
    ),
    calibrate(
        "gptq_columns_divides_by_tiny_scales",
        "divide.cuh",
        "const float v = value * factor,",
        "const float v = value,",
        "none",
        DIFFERS,
        "gptq_columns_extremes",
        "gptq_columns_sm80.cu",
    ),
    calibrate(
        "weight_scales_without_barrier",
        "weight_scales_sm80.cu",
        "  if (threadIdx.x == 0) any = 0;\n  __syncthreads();\n",
        "  if (threadIdx.x == 0) any = 0;\n",
        "thread",
        RACE,
        "weight_scales_least_error",
    ),
    calibrate(
        "weight_scales_are_not_rounded",
        "weight_scales_sm80.cu",
        "round_to(p.dtype, divide(amax, limit))",
        "divide(amax, limit)",
        "none",
        DIFFERS,
        "weight_scales_min_max",
    ),
    calibrate(
        "weight_scales_stop_alone",
        "weight_scales_sm80.cu",
        "idle = p.improved[launch] >> bit & 1u ? 0 : idle + 1;",
        "idle = p.masks[launch * p.count + group] >> bit & 1u ? 0 : idle + 1;",
        "none",
        "FAIL",
        "weight_scales_stop_together",
    ),
    calibrate(
        "weight_scales_never_stop",
        "weight_scales_sm80.cu",
        "step < p.steps && idle < p.patience",
        "step < p.steps",
        "none",
        "FAIL",
        "weight_scales_stop_together",
    ),
    calibrate(
        "weight_scales_weigh_errors_by_no_scale",
        "weight_scales_sm80.cu",
        "static_cast<double>(own) * pow(static_cast<double>(scale), p.norm)",
        "static_cast<double>(own)",
        "none",
        "has an error of",
        "weight_scales_least_error",
    ),
    calibrate(
        "quantize_weight_loses_the_sign_of_zero",
        "quantize_weight_sm80.cu",
        "f32_bits(q) | (f32_bits(w) & 0x80000000u)",
        "f32_bits(q)",
        "none",
        DIFFERS,
        "quantize_weight_codes",
    ),
    calibrate(
        "quantize_weight_takes_one_scale_for_a_chunk",
        "quantize_weight_sm80.cu",
        "if (left == 0 && ++group < p.groups)",
        "if (left == 0 && ++group < 1)",
        "none",
        DIFFERS,
        "quantize_weight_codes",
    ),
    calibrate(
        "column_range_without_barrier", "column_range_sm80.cu", _BARRIER, "", "thread", RACE, "column_"
    ),
    calibrate(
        "column_range_has_offsets_of_32_bits",
        "column_range_sm80.cu",
        "t * p.stride)",
        "int(t * p.stride) & 0x3fffffff)",
        "none",
        DIFFERS,
        "column_range_of_rows",
    ),
    calibrate(
        "column_range_forgets_nan",
        "column_range_sm80.cu",
        "best == best && !(v >= best) ? v : best",
        "v < best ? v : best",
        "none",
        DIFFERS,
        "column_statistics",
    ),
    calibrate(
        "column_range_reads_past_t",
        "column_range_sm80.cu",
        "min(begin + run, slice_end)",
        "begin + run",
        "address",
        OVERFLOW,
        "column_statistics",
    ),
    calibrate(
        "column_range_forgets_a_slice",
        "column_range_sm80.cu",
        "slice < p.slices; ++slice",
        "slice < p.slices - 1; ++slice",
        "none",
        DIFFERS,
        "column_statistics",
    ),
    calibrate(
        "smooth_scales_take_one_exponent_for_both",
        "column_range_sm80.cu",
        "pow(weight, 1.0 - p.strength)",
        "pow(weight, p.strength)",
        "none",
        DIFFERS,
        "smooth_scales",
    ),
    sm90(
        "rows_of_weights_without_their_padding",
        "gemm_w8a8_sm90.cpp",
        "p.weight_stride = code_row_bytes(op.k);",
        "p.weight_stride = round_up(op.k + 16, 16);",
        "address",
        OVERFLOW,
        "gemm_w8a8_int8_sm90_shapes",
    ),
    sm90(
        "scales_of_rows_for_columns",
        "gemm_w8a8_sm90.cpp",
        "p.col_scale = op.col_scale;",
        "p.col_scale = op.row_scale;",
        "address",
        OVERFLOW,
        "gemm_w8a8_int8_sm90_shapes",
    ),
    sm90(
        "without_a_dtype",
        "gemm_w8a8_sm90.cpp",
        "p.bf16 = op.y_dtype == DType::bf16;",
        "p.bf16 = true;",
        "none",
        DIFFERS,
        "gemm_w8a8_fp8_sm90_shapes",
    ),
    sm90(
        "codes_side_by_side",
        "quantize_sm80.cuh",
        "row * output.stride;",
        "row * output.k;",
        "none",
        DIFFERS,
        "linear_w8a8_int8_sm90",
        "quantize_per_token_sm80.cu",
    ),
    sm90(
        "too_small_a_workspace",
        "linear_w8a8.h",
        "return scales_at(op, card) + op.m * 4;",
        "return scales_at(op, card);",
        "address",
        OVERFLOW,
        "linear_w8a8_fp8_sm90",
        "linear_w8a8_sm90.cpp",
    ),
    sm90(
        "too_little_room_for_padded_codes",
        "linear_w8a8.h",
        "round_up(op.m * code_row_bytes(op.k), 256);",
        "round_up(op.m * op.k, 16);",
        "address",
        OVERFLOW,
        "linear_w8a8_int8_sm90",
        "linear_w8a8_sm90.cpp",
    ),
    sm90(
        "bands_of_more_tiles_than_there_are",
        "gemm_w8a8_sm90.cpp",
        " && across % (band * shape.beside()) == 0",
        "",
        "none",
        "a band of",
        "sm90_bands",
    ),
    sm90(
        "plan_blind_to_rounds",
        "gemm_w8a8_sm90.cpp",
        "double(divide_up(tiles(m, n), slots))",
        "double(tiles(m, n)) / double(slots)",
        "none",
        " gets ",
        "sm90_plan_follows",
    ),
    sm90(
        "plan_with_a_cliff",
        "gemm_w8a8_sm90.cpp",
        "if (shape.codes != codes || shape.sums != sums) continue;",
        "if (shape.codes != codes || shape.sums != sums || (m > 300 && shape.bm * shape.bn < 32768)) continue;",
        "none",
        "times m - 1",
        "sm90_plan_has_no_cliffs",
    ),
    sm90(
        "takes_any_rows_of_y",
        "gemm_w8a8_sm90.cpp",
        "!rows_aligned(op.y, op.m, op.y_stride, 2)",
        "false",
        "none",
        "expected 'rows of y'",
        "sm90_refuses",
    ),
    sm90(
        "strict_asks_hopper_of_every_card",
        "dispatch.cpp",
        "info->implementations[i].is_for(card) && ",
        "",
        "none",
        "is refused its best",
        "best_on_hopper_alone",
    ),
    Broken(
        "quantize: a barrier is missing between the warps' maxima and their maximum",
        "rows.cuh",
        "quantize_per_token_sm80.cu",
        "    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = v;\n    __syncthreads();",
        "    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = v;",
        "thread",
        RACE,
        "quantize_per_token_int8",
    ),
    Broken(
        "quantize: the same, seen by a wrong result",
        "rows.cuh",
        "quantize_per_token_sm80.cu",
        "    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = v;\n    __syncthreads();",
        "    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = v;",
        "none",
        "FAIL",
        "quantize_per_token_int8",
    ),
    Broken(
        "rms_norm: a barrier is missing in the square sum",
        "rows.cuh",
        "rms_norm_quantize_sm80.cu",
        "    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = f32_bits(v);\n    __syncthreads();",
        "    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = f32_bits(v);",
        "thread",
        RACE,
        "rms_norm_quantize_int8",
    ),
    Broken(
        "rms_norm: sum and maximum share their slots",
        "quantize_sm80.cuh",
        "rms_norm_quantize_sm80.cu",
        "group_max<kWarp>(most, max_slots)",
        "group_max<kWarp>(most, sum_slots)",
        "thread",
        RACE,
        "rms_norm_quantize_int8",
    ),
    Broken(
        "quantize: one chunk is read past the row",
        "quantize_sm80.cuh",
        "quantize_per_token_sm80.cu",
        "    if (at < k) f(kept[i], at);",
        "    if (at <= k) f(kept[i], at);",
        "address",
        OVERFLOW,
        "quantize_per_token_int8",
    ),
    Broken(
        "quantize: a ragged tail is read past its end",
        "rows.cuh",
        "quantize_per_token_sm80.cu",
        "high = at + 2 * i + 1 < k ? __ldg(from + 1) : 0u;",
        "high = at + 2 * i < k ? __ldg(from + 1) : 0u;",
        "address",
        OVERFLOW,
        "quantize_per_token_int8",
    ),
    Broken(
        "quantize: codes are written past the row",
        "rows.cuh",
        "quantize_per_token_sm80.cu",
        "    if (at + i < k) row[at + i] = ",
        "    row[at + i] = ",
        "none",
        "codes",
        "quantize_per_token_int8",
    ),
    Broken(
        "quantize: too little shared memory is asked for",
        "quantize_sm80.cuh",
        "quantize_per_token_sm80.cu",
        "(divide_up(chunks, most_threads) - kept) * most_threads * chunk_bytes};",
        "(divide_up(chunks, most_threads) - kept) * most_threads * chunk_bytes - 64};",
        "address",
        "use-after-poison",
        "quantize_past_registers",
    ),
    Broken(
        "quantize: a shuffle where only half of the warp comes",
        "rows.cuh",
        "quantize_per_token_sm80.cu",
        "PW_DEVICE uint32_t group_max(uint32_t v, uint32_t* slots) {\n",
        "PW_DEVICE uint32_t group_max(uint32_t v, uint32_t* slots) {\n"
        "  if (threadIdx.x & 1) v = max(v, __shfl_xor_sync(kFullWarp, v, 1));\n",
        "none",
        "emulator: ",
        "quantize_per_token_int8",
    ),
    Broken(
        "quantize: a barrier that the threads beyond the row do not reach",
        "quantize_sm80.cuh",
        "quantize_per_token_sm80.cu",
        "  if (kWarp && row >= output.m) return;",
        "  if (row >= output.m || static_cast<int64_t>(threadIdx.x) * kChunk >= output.k) return;",
        "none",
        "emulator: ",
        "quantize_per_token_int8",
    ),
    Broken(
        "quantize: offsets of 32 bits",
        "quantize_sm80.cuh",
        "quantize_per_token_sm80.cu",
        "    return load_chunk<dtype, true, kWhole>(element<dtype>(x, row * x_stride), at, k);",
        "    return load_chunk<dtype, true, kWhole>(element<dtype>(x, int(row * x_stride) & 0x3fffffff), at, k);",
        "none",
        "FAIL",
        "quantize_rows_more_than",
    ),
    Broken(
        "quantize: half away from zero",
        "quantize_sm80.cuh",
        "quantize_per_token_sm80.cu",
        "((a + 0x7ffffu + (a >> 20 & 1u)) >> 20)",
        "((a + 0x80000u) >> 20)",
        "none",
        "codes",
        "quantize_every_bfloat16_fp8",
    ),
    Broken(
        "quantize: negative zero loses its sign",
        "quantize_sm80.cuh",
        "quantize_per_token_sm80.cu",
        "f32_bits(q[i]) | (f32_bits(v[i]) & 0x80000000u)",
        "f32_bits(q[i])",
        "none",
        "codes",
        "quantize_per_token_fp8",
        "89",
    ),
    Broken(
        "silu_mul: the gate is not rounded before the product",
        "quantize_sm80.cuh",
        "silu_mul_quantize_sm80.cu",
        "    round_all<dtype>(gate);\n",
        "",
        "none",
        "codes",
        "silu_mul_quantize_int8",
    ),
    Broken(
        "silu_mul: values alone are not rounded after the gate",
        "quantize_sm80.cuh",
        "silu_mul_quantize_sm80.cu",
        "    round_all<dtype>(gate);\n",
        "",
        "none",
        "silu ",
        "silu_mul",
    ),
    Broken(
        "rms_norm: eps is left out",
        "quantize_sm80.cuh",
        "rms_norm_quantize_sm80.cu",
        "producer.inverse_k, producer.eps)",
        "producer.inverse_k, 0.0f)",
        "none",
        "FAIL",
        "rms_norm_quantize_int8",
    ),
]
