// SPDX-License-Identifier: Apache-2.0
// quantize.h: per-token quantization of activations, alone and fused with what produces them; RMSNorm and SiLU alone.
//
// A row's scale is amax / 127 (INT8) or amax / 448 (FP8 E4M3), float32, by true division; codes are
// round-half-even(v / scale), clamped to -127..127 or saturated to +-448. An all-zero row has scale 0 and codes 0.
// NaN or Inf in a row makes that row's scale NaN (so that its outputs are NaN); its codes are then unspecified.
#pragma once
#include "pennyweight/formats.h"
#include "pennyweight/registry.h"

namespace pennyweight {

// codes, scale = quantize(x / smooth)
struct QuantizePerToken {
  const void* x;        // (m, k) x_dtype, rows x_stride elements apart
  const float* smooth;  // (k,) or null: divides x first, in float32
  void* codes;          // (m, k) int8, or E4M3 as uint8; contiguous
  float* scale;         // (m,)
  int64_t m, k, x_stride;
  DType x_dtype;  // f32, f16, bf16
};
struct QuantizePerTokenInt8 : QuantizePerToken {
  static constexpr OpId id = OpId::quantize_per_token_int8;
};
struct QuantizePerTokenFp8 : QuantizePerToken {
  static constexpr OpId id = OpId::quantize_per_token_fp8;
};

// hidden = x (+ residual), rounded to the dtype; normed = round(weight * round(hidden * rsqrt(mean(hidden^2) + eps)));
// codes, scale = quantize(normed). The two roundings are those of transformers' RMSNorm. The sum of squares runs in 64
// float32 lanes (lane = k mod 64, fused multiply-adds in order of k), added pairwise: lanes 0-31 to 32-63, 0-15 to
// 16-31 ...
// RmsNorm gives `normed` itself.
struct RmsNorm {
  const void* x;         // (m, k)
  const void* residual;  // (m, k) or null
  const void* weight;    // (k,)
  void* normed;          // (m, k) contiguous
  void* hidden;          // (m, k) contiguous: x + residual; null without residual
  int64_t m, k, x_stride, residual_stride;
  double eps;
  DType x_dtype;  // of x, residual, weight, normed and hidden
  static constexpr OpId id = OpId::rms_norm;
};
struct RmsNormQuantize {
  const void* x;         // (m, k)
  const void* residual;  // (m, k) or null
  const void* weight;    // (k,)
  void* codes;           // (m, k)
  float* scale;          // (m,)
  void* hidden;          // (m, k) contiguous: x + residual; null without residual
  int64_t m, k, x_stride, residual_stride;
  double eps;
  DType x_dtype;  // of x, residual, weight and hidden
};
struct RmsNormQuantizeInt8 : RmsNormQuantize {
  static constexpr OpId id = OpId::rms_norm_quantize_int8;
};
struct RmsNormQuantizeFp8 : RmsNormQuantize {
  static constexpr OpId id = OpId::rms_norm_quantize_fp8;
};

// v = round(round(silu(gate)) * up); codes, scale = quantize(v). silu(g) = g / (1 + exp(-g)) in float32 by
// numerics.h's exp, so that every implementation gives the same bits.
struct SiluMulQuantize {
  const void* gate_up;  // (m, 2k): gate, then up
  void* codes;          // (m, k)
  float* scale;         // (m,)
  int64_t m, k, x_stride;
  DType x_dtype;
};
struct SiluMulQuantizeInt8 : SiluMulQuantize {
  static constexpr OpId id = OpId::silu_mul_quantize_int8;
};
struct SiluMulQuantizeFp8 : SiluMulQuantize {
  static constexpr OpId id = OpId::silu_mul_quantize_fp8;
};

// y = round(round(silu(gate)) * up), what SiluMulQuantize quantizes.
struct SiluMul {
  const void* gate_up;  // (m, 2k): gate, then up
  void* y;              // (m, k) contiguous
  int64_t m, k, x_stride;
  DType x_dtype;  // of gate_up and y
  static constexpr OpId id = OpId::silu_mul;
};

}  // namespace pennyweight
