// SPDX-License-Identifier: Apache-2.0
// fp8_rows.h: E4M3 activations as float32, for the FMA implementations of the FP8 linear layer.
#pragma once
#include "linear_panels.h"
#include "quantize_row.h"

namespace pennyweight::cpu {
namespace {

// Rows are decoded times 2^8, since the formats decode weights times 2^-8.
struct Fp8Rows {
  float value[256];
  Fp8Rows() {
    for (int i = 0; i < 256; ++i) value[i] = e4m3_f32(static_cast<uint8_t>(i)) * 256.0f;
  }
  void decode(const uint8_t* codes, int64_t k, float* out, int64_t units) const {
    for (int64_t i = 0; i < k; ++i) out[i] = value[codes[i]];
    for (int64_t i = k; i < units; ++i) out[i] = 0.0f;
  }
};

template <class Isa, class Format>
static void run_fp8_codes(const GemmW8A8Fp8& op, const Format& format, const Executor& executor) {
  const Fp8Rows rows;
  const LinearJob job = fp8_job(op, op.y_dtype, op.row_scale);
  const int64_t units = job.total_steps * Format::units;
  const auto row = [&](int64_t r, uint32_t* out) {
    const uint8_t* codes = static_cast<const uint8_t*>(op.codes) + r * op.codes_stride;
    rows.decode(codes, op.k, reinterpret_cast<float*>(out), units);
  };
  run_linear<Isa, Format, false>(job, format, row, executor);
}

template <class Isa, class Format>
static void run_fp8_values(const LinearW8A8Fp8& op, const Format& format,
                           float (*quantize)(const ActivationRow&, uint8_t*), const Executor& executor) {
  const Fp8Rows rows;
  float* row_scale = static_cast<float*>(scratch(Slot::scales, op.m * 4));
  const LinearJob job = fp8_job(op, op.x_dtype, row_scale);
  const int64_t units = job.total_steps * Format::units;
  const auto row = [&](int64_t r, uint32_t* out) {
    uint8_t* codes = static_cast<uint8_t*>(scratch(Slot::sums, op.k));
    const char* x = static_cast<const char*>(op.x) + r * op.x_stride * dtype_bytes(op.x_dtype);
    row_scale[r] = quantize({x, op.smooth, op.k, op.x_dtype}, codes);
    rows.decode(codes, op.k, reinterpret_cast<float*>(out), units);
  };
  run_linear<Isa, Format, false>(job, format, row, executor);
}

}  // namespace
}  // namespace pennyweight::cpu
