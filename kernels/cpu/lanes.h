// SPDX-License-Identifier: Apache-2.0
// lanes.h: the widest float vector of the file that includes it (its ISA flags decide), under one set of names, so that
// one source serves AVX2 and AVX-512. Everything is static: no other file can be linked against a copy.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "pennyweight/formats.h"

namespace pennyweight::cpu {
namespace {

#if defined(__AVX512F__)
using Lanes = __m512;
constexpr int kLanes = 16;
static inline Lanes load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, Lanes v) { _mm512_storeu_ps(p, v); }
static inline Lanes all(float v) { return _mm512_set1_ps(v); }
static inline Lanes fma(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
static inline Lanes fnma(Lanes a, Lanes b, Lanes c) { return _mm512_fnmadd_ps(a, b, c); }
static inline Lanes round_even(Lanes v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// Smaller and larger; the second operand where either is NaN.
static inline Lanes lesser(Lanes a, Lanes b) { return _mm512_min_ps(a, b); }
static inline Lanes greater(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
// Whole numbers of int8 range; NaN becomes 0.
static inline void store_int8(int8_t* p, Lanes v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}
static inline Lanes load_bf16(const uint16_t* p) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
static inline Lanes load_f16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
#else
using Lanes = __m256;
constexpr int kLanes = 8;
static inline Lanes load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, Lanes v) { _mm256_storeu_ps(p, v); }
static inline Lanes all(float v) { return _mm256_set1_ps(v); }
static inline Lanes fma(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
static inline Lanes fnma(Lanes a, Lanes b, Lanes c) { return _mm256_fnmadd_ps(a, b, c); }
static inline Lanes round_even(Lanes v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline Lanes lesser(Lanes a, Lanes b) { return _mm256_min_ps(a, b); }
static inline Lanes greater(Lanes a, Lanes b) { return _mm256_max_ps(a, b); }
static inline void store_int8(int8_t* p, Lanes v) {
  // The low byte of each dword to the front of its half, the halves' dwords together.
  const __m256i bytes = _mm256_shuffle_epi8(
      _mm256_cvtps_epi32(v), _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                              0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(low, high));
}
static inline Lanes load_bf16(const uint16_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
static inline Lanes load_f16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
#endif

// The same register as whole numbers; arithmetic, shifts and comparisons by GCC's vector types.
typedef int32_t Bits __attribute__((vector_size(kLanes * 4)));
typedef int8_t Bytes __attribute__((vector_size(kLanes)));

static inline Lanes none() { return all(0.0f); }
static inline Lanes magnitude(Lanes v) { return (Lanes)((Bits)v & 0x7fffffff); }
static inline Lanes as_floats(Bits v) { return (Lanes) __builtin_convertvector(v, Lanes); }
static inline Bits as_whole(Lanes v) { return __builtin_convertvector(v, Bits); }
static inline void store_bytes(void* p, Bits v) {
  const Bytes bytes = __builtin_convertvector(v, Bytes);
  __builtin_memcpy(p, &bytes, kLanes);
}
// The sum and the largest of the lanes, pairwise.
static inline float sum_of(Lanes v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}
static inline float largest_of(Lanes v) {
  float lane[kLanes];
  store(lane, v);
  for (int i = 1; i < kLanes; ++i) lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
  return lane[0];
}
// kLanes elements of type T from element i on, as float32.
template <DType T>
static inline Lanes load_as(const void* p, int64_t i) {
  if constexpr (T == DType::f32)
    return load(static_cast<const float*>(p) + i);
  else if constexpr (T == DType::bf16)
    return load_bf16(static_cast<const uint16_t*>(p) + i);
  else
    return load_f16(static_cast<const uint16_t*>(p) + i);
}

}  // namespace
}  // namespace pennyweight::cpu
