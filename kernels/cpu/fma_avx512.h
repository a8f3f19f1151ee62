// SPDX-License-Identifier: Apache-2.0
// fma_avx512.h: units of one float32, multiplied by FMA. Included by AVX-512 files alone.
#pragma once
#include "simd_avx512.h"

namespace pennyweight::cpu {
namespace {

struct Fma16 : Avx512 {
  static constexpr int unit_k = 1;
  template <int width>
  static PW_INLINE void mac_row(__m512 (&acc)[width], const __m512i (&w)[width], const uint32_t* x) {
    PW_UNROLL for (int i = 0; i < width;
                   ++i) asm volatile("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(acc[i]) : "v"(w[i]), "m"(*x));
  }
};

}  // namespace
}  // namespace pennyweight::cpu
