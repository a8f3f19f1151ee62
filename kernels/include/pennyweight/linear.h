// SPDX-License-Identifier: Apache-2.0
// linear.h: the linear layers, y = x . dequantize(weight)^T + bias, and the GEMMs of the 8-bit ones on given codes.
//
// Epilogue of W8A8 (INT8: exact), in float32 and in this order: ((float)acc * row_scale[m]) * col_scale[n], + bias[n],
// one rounding to y's dtype.
#pragma once
#include "pennyweight/formats.h"
#include "pennyweight/registry.h"

namespace pennyweight {

struct GemmW8A8 {
  const void* codes;       // (m, k) int8 or E4M3, rows codes_stride apart
  const float* row_scale;  // (m,)
  const void* weight;      // (n, k): INT8_PANEL or FP8_PANEL; on a card CODE_ROWS
  const float* col_scale;  // (n,)
  const void* bias;        // (n,) y_dtype, or null
  void* y;                 // (m, n), rows y_stride apart
  int64_t m, n, k, codes_stride, y_stride;
  DType y_dtype;       // f32, f16, bf16; INT8 also i32: the bare accumulators (scales and bias null)
  int64_t fast_accum;  // FP8 on a card only; a CPU always sums in float32
};
struct GemmW8A8Int8 : GemmW8A8 {
  static constexpr OpId id = OpId::gemm_w8a8_int8;
};
struct GemmW8A8Fp8 : GemmW8A8 {
  static constexpr OpId id = OpId::gemm_w8a8_fp8;
};

// Quantizes x per token as quantize.h says (smooth included), then GemmW8A8. Same bits as the two ops in a row.
struct LinearW8A8 {
  const void* x;           // (m, k) x_dtype, rows x_stride apart
  const float* smooth;     // (k,) or null
  const void* weight;      // as GemmW8A8
  const float* col_scale;  // (n,)
  const void* bias;        // (n,) x_dtype, or null
  void* y;                 // (m, n) x_dtype, rows y_stride apart
  int64_t m, n, k, x_stride, y_stride;
  DType x_dtype;  // f32, f16, bf16
  int64_t fast_accum;
};
struct LinearW8A8Int8 : LinearW8A8 {
  static constexpr OpId id = OpId::linear_w8a8_int8;
};
struct LinearW8A8Fp8 : LinearW8A8 {
  static constexpr OpId id = OpId::linear_w8a8_fp8;
};

// y[m,n] = sum_g scale[n,g] * sum_{k in g} x[m,k] * (q[n,k] - z[n,g]) (+ bias), summed in float32, rounded once.
struct LinearW4A16 {
  const void* x;       // (m, k) x_dtype, rows x_stride apart
  const void* weight;  // INT4_PANEL
  const void* bias;    // (n,) x_dtype, or null
  void* y;             // (m, n) x_dtype, rows y_stride apart
  int64_t m, n, k, x_stride, y_stride;
  int64_t group_size;   // 32, 64, 128; k: one scale per channel
  int64_t zero_points;  // 0 or 1
  DType x_dtype, scale_dtype;
  static constexpr OpId id = OpId::linear_w4a16;
};

// As LinearW4A16 on x quantized per token to INT8: per group an exact int32 sum acc = sum x_q * (q - z); then in order
// of g total = fma((float)acc, scale[n,g], total); y = total * row_scale[m] (+ bias), one rounding.
struct LinearW4A8Int8 {
  const void* x;
  const float* smooth;  // (k,) or null
  const void* weight;
  const void* bias;
  void* y;
  int64_t m, n, k, x_stride, y_stride;
  int64_t group_size, zero_points;
  DType x_dtype, scale_dtype;
  static constexpr OpId id = OpId::linear_w4a8_int8;
};

// A weight that stays in bf16, row-major as nn.Linear holds it (an embedding may share it): y = x . weight^T (+ bias),
// summed in float32, rounded once. x, weight, bias and y are bf16.
struct LinearBf16 {
  const void* x;       // (m, k), rows x_stride apart
  const void* weight;  // (n, k), rows w_stride apart
  const void* bias;    // (n,) or null
  void* y;             // (m, n), rows y_stride apart
  int64_t m, n, k, x_stride, w_stride, y_stride;
  static constexpr OpId id = OpId::linear_bf16;
};

}  // namespace pennyweight
