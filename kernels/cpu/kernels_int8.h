// SPDX-License-Identifier: Apache-2.0
// kernels_int8.h: what the tables list of quantize_*.cpp and of the INT8 activation kernels.
#pragma once
#include "pennyweight/linear.h"
#include "pennyweight/quantize.h"

namespace pennyweight::cpu::avx2 {
void quantize_per_token_int8(const QuantizePerTokenInt8& op, const Executor& executor);
void quantize_per_token_fp8(const QuantizePerTokenFp8& op, const Executor& executor);
void rms_norm(const RmsNorm& op, const Executor& executor);
void rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const Executor& executor);
void rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const Executor& executor);
void silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const Executor& executor);
void silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const Executor& executor);
void silu_mul(const SiluMul& op, const Executor& executor);
void gemm_w8a8_int8(const GemmW8A8Int8& op, const Executor& executor);
void linear_w8a8_int8(const LinearW8A8Int8& op, const Executor& executor);
void linear_w4a8_int8(const LinearW4A8Int8& op, const Executor& executor);
}  // namespace pennyweight::cpu::avx2
namespace pennyweight::cpu::avx512vnni {
void quantize_per_token_int8(const QuantizePerTokenInt8& op, const Executor& executor);
void quantize_per_token_fp8(const QuantizePerTokenFp8& op, const Executor& executor);
void rms_norm(const RmsNorm& op, const Executor& executor);
void rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const Executor& executor);
void rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const Executor& executor);
void silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const Executor& executor);
void silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const Executor& executor);
void silu_mul(const SiluMul& op, const Executor& executor);
void gemm_w8a8_int8(const GemmW8A8Int8& op, const Executor& executor);
void linear_w8a8_int8(const LinearW8A8Int8& op, const Executor& executor);
void linear_w4a8_int8(const LinearW4A8Int8& op, const Executor& executor);
}  // namespace pennyweight::cpu::avx512vnni
namespace pennyweight::cpu::avx512bf16 {
void quantize_per_token_int8(const QuantizePerTokenInt8& op, const Executor& executor);
void quantize_per_token_fp8(const QuantizePerTokenFp8& op, const Executor& executor);
void rms_norm(const RmsNorm& op, const Executor& executor);
void rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const Executor& executor);
void rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const Executor& executor);
void silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const Executor& executor);
void silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const Executor& executor);
void silu_mul(const SiluMul& op, const Executor& executor);
}  // namespace pennyweight::cpu::avx512bf16
