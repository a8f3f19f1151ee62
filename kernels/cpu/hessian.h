// SPDX-License-Identifier: Apache-2.0
// hessian.h: h += x^T x: what the driver (hessian.cpp) asks of an instruction set (hessian_kernels.h).
//
// x is packed into panels of `width` columns, tokens running down, so that both operands of the product are read in
// order; one token per dword (float32), or two (a pair of bf16 for dot products).
#pragma once
#include "pennyweight/calibrate.h"

namespace pennyweight::cpu {

struct HessianKernels {
  int64_t width;  // columns of a panel
  int64_t pair;   // tokens per dword: 1 or 2
  // `tokens` rows of x, which has `columns` columns from here on (fewer than width: the rest is zero) -> panel
  // (ceil(tokens / pair), width) dwords.
  void (*pack)(const void* x, DType dtype, int64_t stride, int64_t tokens, int64_t columns, float* panel);
  // c (width, width), rows `stride` apart, += a^T b over `steps` dwords of two panels.
  void (*multiply)(float* c, int64_t stride, const float* a, const float* b, int64_t steps);
};

void accumulate_hessian(const HessianAccumulate& op, const Executor& executor, const HessianKernels& kernels);
void hessian_accumulate_avx2(const HessianAccumulate& op, const Executor& executor);
void hessian_accumulate_avx512vnni(const HessianAccumulate& op, const Executor& executor);
// bf16 inputs by dot products of pairs (products exact, both sums rounded to nearest, subnormals flushed), others by
// FMA.
void hessian_accumulate_avx512bf16(const HessianAccumulate& op, const Executor& executor);

}  // namespace pennyweight::cpu
