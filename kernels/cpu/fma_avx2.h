// SPDX-License-Identifier: Apache-2.0
// fma_avx2.h: 8 float32 lanes and FMA for linear_panels.h. Included by AVX2 files alone.
//
// Sixteen registers: decoding takes a mask, a constant and a temporary, so that in registers only 4 rows by 2 vectors
// fit; from 5 rows on weights are decoded once and swept 6 rows by 2 vectors.
#pragma once
#include <immintrin.h>

#include "linear_panels.h"

namespace pennyweight::cpu {
namespace {

struct Fma8 {
  using Vec = __m256;
  using Bits = __m256i;
  static constexpr int unit_k = 1, lanes = 8;
  static constexpr int64_t superblock_k = 512;  // 128 KB of float32
  static constexpr int64_t register_rows = 4;
  static constexpr int64_t tile_rows = 6;
  static constexpr int tile_width = 2;
  static constexpr int register_width(int rows) { return rows == 1 ? 4 : 2; }

  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec set1(float v) { return _mm256_set1_ps(v); }
  static Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static Bits load_bits(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void store_bits(uint32_t* p, Bits v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

  template <int width>
  static PW_INLINE void mac_row(__m256 (&acc)[width], const __m256i (&w)[width], const uint32_t* x) {
    const __m256 v = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(*x)));
    PW_UNROLL for (int i = 0; i < width; ++i) acc[i] = _mm256_fmadd_ps(_mm256_castsi256_ps(w[i]), v, acc[i]);
  }

  static Vec load_as(const void* p, DType t, int64_t i) {
    if (t == DType::f32) return _mm256_loadu_ps(static_cast<const float*>(p) + i);
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const uint16_t*>(p) + i));
    if (t == DType::f16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
  }
  // Rounds bf16 as f32_bf16 does.
  static void store_as(void* p, DType t, int64_t i, Vec v) {
    if (t == DType::f32) return _mm256_storeu_ps(static_cast<float*>(p) + i, v);
    __m128i half;
    if (t == DType::f16) {
      half = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    } else {
      const __m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
      const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
      const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
      const __m256i word = _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), _mm256_set1_epi32(0x7fc0), nan);
      half = _mm_packus_epi32(_mm256_castsi256_si128(word), _mm256_extracti128_si256(word, 1));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<uint16_t*>(p) + i), half);
  }

  // rows x units dwords, rows `stride` apart -> [unit][rows]
  static void interleave(const uint32_t* in, int64_t stride, int64_t rows, int64_t units, uint32_t* out) {
    for (int64_t u = 0; u < units; ++u)
      for (int64_t r = 0; r < rows; ++r) *out++ = in[r * stride + u];
  }
};

}  // namespace
}  // namespace pennyweight::cpu
