// SPDX-License-Identifier: Apache-2.0
// hessian_accumulate_avx512bf16.cpp: h += x^T x (hessian.h) of bf16 x, two tokens per dot product; other types as
// AVX512-VNNI.
#include "hessian_kernels.h"

namespace pennyweight::cpu {
namespace {

static inline Lanes dot(Lanes a, Lanes b, Lanes c) {
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

// Tokens t and t + 1 of a column in the low and high half of a dword.
static void pack_pairs(const void* x, DType, int64_t stride, int64_t tokens, int64_t columns, float* panel) {
  const uint16_t* rows = static_cast<const uint16_t*>(x);
  for (int64_t t = 0; t < tokens; t += 2, panel += kWidth)
    for (int v = 0; v < kVectors; ++v) {
      const int64_t left = columns - v * kLanes;
      const __mmask16 mask = left >= kLanes ? 0xffff : left > 0 ? static_cast<__mmask16>((1u << left) - 1) : 0;
      const uint16_t* at = rows + t * stride + v * kLanes;
      const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at));
      const __mmask16 odd_mask = t + 1 < tokens ? mask : 0;
      const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(odd_mask, at + stride));
      _mm512_storeu_si512(panel + v * kLanes, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
}

}  // namespace

void hessian_accumulate_avx512bf16(const HessianAccumulate& op, const Executor& executor) {
  if (op.x_dtype == DType::bf16)
    accumulate_hessian(op, executor, {kWidth, 2, pack_pairs, multiply<dot>});
  else
    accumulate_hessian(op, executor, {kWidth, 1, pack, multiply<fma>});
}

}  // namespace pennyweight::cpu
