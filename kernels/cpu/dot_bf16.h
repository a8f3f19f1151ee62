// SPDX-License-Identifier: Apache-2.0
// dot_bf16.h: units of two bf16 values, multiplied by vdpbf16ps. Included by AVX512-BF16 files alone.
//
// Numerics  vdpbf16ps rounds each of its two additions to float32 and flushes subnormals (operands and sums, whatever
//           MXCSR says): decoded weights are never subnormal; a bf16 activation below 2^-126 counts as zero.
#pragma once
#include "simd_avx512.h"

namespace pennyweight::cpu {
namespace {

struct Dot16 : Avx512 {
  static constexpr int unit_k = 2;
  static constexpr int64_t superblock_k = 512;  // 64 KB of pairs
  template <int width>
  static PW_INLINE void mac_row(__m512 (&acc)[width], const __m512i (&w)[width], const uint32_t* x) {
    PW_UNROLL for (int i = 0; i < width;
                   ++i) asm volatile("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc[i]) : "v"(w[i]), "m"(*x));
  }
};

}  // namespace
}  // namespace pennyweight::cpu
