// SPDX-License-Identifier: Apache-2.0
// fma_avx512.h: units of one float32, multiplied by FMA. Included by AVX-512 files alone.
//
// Processors that come here (without BF16 products) have two multipliers and two load ports: an embedded broadcast for
// every product would ask more of the ports than they give, so a row's value is broadcast once for its products.
#pragma once
#include "simd_avx512.h"

namespace pennyweight::cpu {
namespace {

struct Fma16 : Avx512 {
  static constexpr int unit_k = 1;
  static constexpr int64_t superblock_k = 128;  // 32 KB of float32
  static constexpr int64_t register_rows = 8;
  static constexpr int register_width(int rows) { return rows <= 4 ? 4 : 2; }
  template <int width>
  static PW_INLINE void mac_row(__m512 (&acc)[width], const __m512i (&w)[width], const uint32_t* x) {
    __m512 v;
    asm volatile("vbroadcastss %1, %0" : "=v"(v) : "m"(*x));
    PW_UNROLL for (int i = 0; i < width; ++i) asm volatile("vfmadd231ps %2, %1, %0" : "+v"(acc[i]) : "v"(w[i]), "v"(v));
  }
};

}  // namespace
}  // namespace pennyweight::cpu
