// SPDX-License-Identifier: Apache-2.0
// linear_float.h: the linear layers whose sums run in float32, one function per op and instruction set.
#pragma once
#include "pennyweight/executor.h"
#include "pennyweight/linear.h"

namespace pennyweight::cpu {

void linear_w4a16_avx2(const LinearW4A16& op, const Executor& executor);
void gemm_w8a8_fp8_avx2(const GemmW8A8Fp8& op, const Executor& executor);
void linear_w8a8_fp8_avx2(const LinearW8A8Fp8& op, const Executor& executor);
void linear_w4a16_avx512vnni(const LinearW4A16& op, const Executor& executor);
void gemm_w8a8_fp8_avx512vnni(const GemmW8A8Fp8& op, const Executor& executor);
void linear_w8a8_fp8_avx512vnni(const LinearW8A8Fp8& op, const Executor& executor);
void linear_w4a16_avx512bf16(const LinearW4A16& op, const Executor& executor);
void gemm_w8a8_fp8_avx512bf16(const GemmW8A8Fp8& op, const Executor& executor);
void linear_w8a8_fp8_avx512bf16(const LinearW8A8Fp8& op, const Executor& executor);
void linear_bf16_avx2(const LinearBf16& op, const Executor& executor);
void linear_bf16_avx512vnni(const LinearBf16& op, const Executor& executor);

}  // namespace pennyweight::cpu
