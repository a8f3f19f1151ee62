// SPDX-License-Identifier: Apache-2.0
// reference.h: the plain loops, one per op. They are the specification; faster code answers to them.
#pragma once
#include "pennyweight/attention.h"
#include "pennyweight/calibrate.h"
#include "pennyweight/linear.h"
#include "pennyweight/pack.h"
#include "pennyweight/quantize.h"

namespace pennyweight::reference {

// Pairwise, the upper half of the lanes to the lower half.
template <int n>
inline float sum_lanes(float (&lane)[n]) {
  for (int width = n / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = lane[i] + lane[i + width];
  return lane[0];
}

void quantize_per_token_int8(const QuantizePerTokenInt8& op, const Executor& executor);
void quantize_per_token_fp8(const QuantizePerTokenFp8& op, const Executor& executor);
void rms_norm(const RmsNorm& op, const Executor& executor);
void rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const Executor& executor);
void rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const Executor& executor);
void silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const Executor& executor);
void silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const Executor& executor);
void silu_mul(const SiluMul& op, const Executor& executor);
void rotary(const Rotary& op, const Executor& executor);
void attention_decode(const AttentionDecode& op, const Executor& executor);
void gemm_w8a8_int8(const GemmW8A8Int8& op, const Executor& executor);
void gemm_w8a8_fp8(const GemmW8A8Fp8& op, const Executor& executor);
void linear_w8a8_int8(const LinearW8A8Int8& op, const Executor& executor);
void linear_w8a8_fp8(const LinearW8A8Fp8& op, const Executor& executor);
void linear_w4a16(const LinearW4A16& op, const Executor& executor);
void linear_w4a8_int8(const LinearW4A8Int8& op, const Executor& executor);
void linear_bf16(const LinearBf16& op, const Executor& executor);
void pack_int8(const PackInt8& op, const Executor& executor);
void unpack_int8(const UnpackInt8& op, const Executor& executor);
void dequantize_int8(const DequantizeInt8& op, const Executor& executor);
void pack_fp8(const PackFp8& op, const Executor& executor);
void unpack_fp8(const UnpackFp8& op, const Executor& executor);
void dequantize_fp8(const DequantizeFp8& op, const Executor& executor);
void pack_int4(const PackInt4& op, const Executor& executor);
void unpack_int4(const UnpackInt4& op, const Executor& executor);
void dequantize_int4(const DequantizeInt4& op, const Executor& executor);
void pack_nibbles(const PackNibbles& op, const Executor& executor);
void unpack_nibbles(const UnpackNibbles& op, const Executor& executor);
void hessian_accumulate(const HessianAccumulate& op, const Executor& executor);
void gptq_quantize(const GptqQuantize& op, const Executor& executor);
void gptq_columns(const GptqColumns& op, const Executor& executor);
void weight_scales(const WeightScales& op, const Executor& executor);
void quantize_weight(const QuantizeWeight& op, const Executor& executor);
void column_range(const ColumnRange& op, const Executor& executor);
void column_abs_max(const ColumnAbsMax& op, const Executor& executor);
void smooth_scales(const SmoothScales& op, const Executor& executor);

}  // namespace pennyweight::reference
