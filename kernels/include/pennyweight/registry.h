// SPDX-License-Identifier: Apache-2.0
// registry.h: every op, its arguments by name, and the ordered list of its implementations.
//
// An op is a plain struct (linear.h, quantize.h, attention.h, pack.h, calibrate.h) whose `id` names its entry here.
// Both extension modules go through run(): one registry, one forced choice, one set of counters per process.
//
// Choice: implementations are listed best first; the first whose why_not() is nullptr runs. A forced name
// (force(), or PENNYWEIGHT_FORCE, read at the first run) takes the implementation of that name, or, for an op that has
// none of that name, the best one that ranks below it (reference < avx2 < avx512vnni < avx512bf16); a forced
// implementation that the machine lacks is an error. PENNYWEIGHT_STRICT=1 makes anything but the first listed an error.
#pragma once
#include <cstddef>
#include <cstdint>

#include "pennyweight/device.h"
#include "pennyweight/executor.h"
#include "pennyweight/status.h"

namespace pennyweight {

enum class OpId : int32_t {
  quantize_per_token_int8,
  quantize_per_token_fp8,
  rms_norm,
  rms_norm_quantize_int8,
  rms_norm_quantize_fp8,
  silu_mul_quantize_int8,
  silu_mul_quantize_fp8,
  silu_mul,
  rotary,
  attention_decode,
  gemm_w8a8_int8,
  gemm_w8a8_fp8,
  linear_w8a8_int8,
  linear_w8a8_fp8,
  linear_w4a16,
  linear_w4a8_int8,
  linear_bf16,
  pack_int8,
  unpack_int8,
  dequantize_int8,
  pack_fp8,
  unpack_fp8,
  dequantize_fp8,
  pack_int4,
  unpack_int4,
  dequantize_int4,
  pack_nibbles,
  unpack_nibbles,
  hessian_accumulate,
  gptq_quantize,
  gptq_columns,
  weight_scales,
  quantize_weight,
  column_range,
  column_abs_max,
  smooth_scales,
  count
};

enum class FieldKind : int32_t { input, output, integer, real, dtype };

struct Field {
  const char* name;
  FieldKind kind;
  size_t offset;
};
#define PW_FIELD(Op, name, kind) \
  ::pennyweight::Field { #name, ::pennyweight::FieldKind::kind, offsetof(Op, name) }

struct Implementation {
  const char* name;
  const char* (*why_not)(const void* op, const Device& device);  // nullptr: runs; else the reason, in words
  void (*run)(const void* op, const Executor& executor);
};

struct OpInfo {
  OpId id;
  const char* name;
  size_t bytes;  // of the op's struct
  const Field* fields;
  int field_count;
  const Implementation* implementations;  // best first; the last is "reference" and takes everything
  int implementation_count;
};

PW_API const OpInfo& op_info(OpId id);
// Runs `op` (the struct that `id` names). `implementation` (may be null) forces one for this call.
PW_API Status run(OpId id, const void* op, const Executor& executor, const char* implementation = nullptr);
// The index of the implementation that run() would take for `op`, or -1 with the reasons in `status`.
PW_API int choose(OpId id, const void* op, const char* implementation, Status* status);
PW_API Status force(const char* implementation);  // null: back to the best that fits
PW_API const char* forced();                      // null when nothing is forced
PW_API bool strict();
PW_API int64_t run_count(OpId id, int implementation);
PW_API const char* last_run(OpId id);  // name of what ran last, null before the first run

// Long ops ask `check` now and then, from the thread that called run(); where it says yes they give up, with
// Code::interrupted and outputs half written. Null: nobody is asked.
PW_API void set_interrupt_check(bool (*check)());

template <class Op>
static Status run(const Op& op, const Executor& executor) {
  return run(Op::id, &op, executor);
}

}  // namespace pennyweight
