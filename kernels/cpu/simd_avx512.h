// SPDX-License-Identifier: Apache-2.0
// simd_avx512.h: 16 float32 lanes for linear_panels.h. Included by AVX-512 files alone.
//
// Multiply-accumulates are volatile assembler: written as intrinsics, GCC 12 hoists the activations' broadcasts or
// reorders the sums and spills them in the inner loop.
#pragma once
// GCC 12's own intrinsics start from undefined registers on purpose and are warned about where they are inlined.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "linear_panels.h"

namespace pennyweight::cpu {
namespace {

struct Avx512 {
  using Vec = __m512;
  using Bits = __m512i;
  static constexpr int lanes = 16;
  static constexpr int64_t register_rows = 16;
  static constexpr int64_t tile_rows = 6;
  static constexpr int tile_width = 4;
  static constexpr int register_width(int rows) { return rows <= 4 ? 4 : rows <= 8 ? 2 : 1; }  // <= 16 sums

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec set1(float v) { return _mm512_set1_ps(v); }
  static Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Bits load_bits(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static void store_bits(uint32_t* p, Bits v) { _mm512_storeu_si512(p, v); }
  static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }

  static Vec load_as(const void* p, DType t, int64_t i) {
    if (t == DType::f32) return _mm512_loadu_ps(static_cast<const float*>(p) + i);
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(p) + i));
    if (t == DType::f16) return _mm512_cvtph_ps(v);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
  }
  // Rounds bf16 as f32_bf16 does, subnormals included (vcvtneps2bf16 flushes them).
  static void store_as(void* p, DType t, int64_t i, Vec v) {
    if (t == DType::f32) return _mm512_storeu_ps(static_cast<float*>(p) + i, v);
    __m256i half;
    if (t == DType::f16) {
      half = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    } else {
      const __m512i u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
      const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
      const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
      half =
          _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(rounded, 16), nan, _mm512_set1_epi32(0x7fc0)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<uint16_t*>(p) + i), half);
  }

  // 16 rows of 16 dwords, transposed in place.
  static PW_INLINE void transpose(__m512i (&v)[16]) {
    __m512i t[16];
    PW_UNROLL for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
      t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    PW_UNROLL for (int i = 0; i < 16; i += 4) PW_UNROLL for (int j = 0; j < 2; ++j) {
      v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
      v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
    }
    PW_UNROLL for (int i = 0; i < 16; i += 8) PW_UNROLL for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + 4 + j], 0x88);
      t[i + 4 + j] = _mm512_shuffle_i32x4(v[i + j], v[i + 4 + j], 0xdd);
    }
    PW_UNROLL for (int j = 0; j < 8; ++j) {
      v[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
      v[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
    }
  }

  // rows x units dwords, rows `stride` apart -> [unit][rows]. Whole vectors are stored in order of units: what one
  // writes beyond its unit, the next overwrites.
  static void interleave(const uint32_t* in, int64_t stride, int64_t rows, int64_t units, uint32_t* out) {
    for (int64_t u = 0; u < units; u += 16) {
      __m512i v[16];
      PW_UNROLL for (int r = 0; r < 16; ++r) v[r] =
          r < rows ? _mm512_loadu_si512(in + r * stride + u) : _mm512_setzero_si512();
      transpose(v);
      alignas(64) __m512i columns[16];
      PW_UNROLL for (int i = 0; i < 16; ++i) columns[i] = v[i];
      const int64_t count = units - u < 16 ? units - u : 16;
      for (int64_t i = 0; i < count; ++i) _mm512_storeu_si512(out + (u + i) * rows, columns[i]);
    }
  }
};

}  // namespace
}  // namespace pennyweight::cpu
