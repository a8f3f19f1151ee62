// SPDX-License-Identifier: Apache-2.0
// f32x16.h: sixteen floats side by side: one AVX-512 register, or two of AVX2, by the flags of the including file.
//
// Sixteen because attention.h sums in sixteen lanes, and quantize.h in 64: kernels written on this type give the same
// bits on both. Every function is the vector form of its namesake in numerics.h; everything is private to the including
// file.
#pragma once
#include <immintrin.h>

#include "pennyweight/numerics.h"

namespace pennyweight::cpu {
namespace {

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

#if defined(__AVX512F__)

struct F32x16 {
  __m512 v;
};
struct I32x16 {
  __m512i v;
};

inline F32x16 splat(float v) { return {_mm512_set1_ps(v)}; }
inline I32x16 splat_i32(int32_t v) { return {_mm512_set1_epi32(v)}; }
inline F32x16 load_f32(const float* p) { return {_mm512_loadu_ps(p)}; }
inline I32x16 load_i32(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline I32x16 load_u16(const void* p) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)))};
}
inline F32x16 load_f16(const void* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)))}; }
inline void store_f32(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a b
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }                     // b where either is NaN
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 round_half_even(F32x16 a) { return {_mm512_roundscale_ps(a.v, kNearest)}; }

inline I32x16 bits(F32x16 a) { return {_mm512_castps_si512(a.v)}; }
inline F32x16 as_float(I32x16 a) { return {_mm512_castsi512_ps(a.v)}; }
inline I32x16 to_int(F32x16 a) { return {_mm512_cvtps_epi32(a.v)}; }
inline F32x16 to_float(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I32x16 operator+(I32x16 a, I32x16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I32x16 operator-(I32x16 a, I32x16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I32x16 operator&(I32x16 a, I32x16 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline I32x16 operator|(I32x16 a, I32x16 b) { return {_mm512_or_si512(a.v, b.v)}; }
inline I32x16 operator^(I32x16 a, I32x16 b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int n>
inline I32x16 shift_left(I32x16 a) {
  return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
inline I32x16 shift_right(I32x16 a) {
  return {_mm512_srli_epi32(a.v, n)};
}
inline I32x16 max(I32x16 a, I32x16 b) { return {_mm512_max_epi32(a.v, b.v)}; }
inline I32x16 min(I32x16 a, I32x16 b) { return {_mm512_min_epi32(a.v, b.v)}; }
// a < b ? x : y
inline I32x16 select_less(I32x16 a, I32x16 b, I32x16 x, I32x16 y) {
  return {_mm512_mask_mov_epi32(y.v, _mm512_cmplt_epi32_mask(a.v, b.v), x.v)};
}

inline __m256i low_words(I32x16 a) { return _mm512_cvtepi32_epi16(a.v); }
inline __m256i half_words(F32x16 a) { return _mm512_cvtps_ph(a.v, kNearest); }
inline F32x16 from_half_words(__m256i a) { return {_mm512_cvtph_ps(a)}; }
inline __m256i low_half(I32x16 a) { return _mm512_castsi512_si256(a.v); }
inline __m256i high_half(I32x16 a) { return _mm512_extracti64x4_epi64(a.v, 1); }
inline __m256 low_half(F32x16 a) { return _mm512_castps512_ps256(a.v); }
inline __m256 high_half(F32x16 a) { return _mm512_extractf32x8_ps(a.v, 1); }

#else

struct F32x16 {
  __m256 lo, hi;
};
struct I32x16 {
  __m256i lo, hi;
};

inline F32x16 splat(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline I32x16 splat_i32(int32_t v) { return {_mm256_set1_epi32(v), _mm256_set1_epi32(v)}; }
inline F32x16 load_f32(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline I32x16 load_i32(const int32_t* p) {
  const __m256i* q = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
inline I32x16 load_u16(const void* p) {
  const __m128i* q = static_cast<const __m128i*>(p);
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(q)), _mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1))};
}
inline F32x16 load_f16(const void* p) {
  const __m128i* q = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
inline void store_f32(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}

inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 fnma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline F32x16 round_half_even(F32x16 a) { return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)}; }

inline I32x16 bits(F32x16 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
inline F32x16 as_float(I32x16 a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
inline I32x16 to_int(F32x16 a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
inline F32x16 to_float(I32x16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
inline I32x16 operator+(I32x16 a, I32x16 b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
inline I32x16 operator-(I32x16 a, I32x16 b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
inline I32x16 operator&(I32x16 a, I32x16 b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
inline I32x16 operator|(I32x16 a, I32x16 b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
inline I32x16 operator^(I32x16 a, I32x16 b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
template <int n>
inline I32x16 shift_left(I32x16 a) {
  return {_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n)};
}
template <int n>
inline I32x16 shift_right(I32x16 a) {
  return {_mm256_srli_epi32(a.lo, n), _mm256_srli_epi32(a.hi, n)};
}
inline I32x16 max(I32x16 a, I32x16 b) { return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)}; }
inline I32x16 min(I32x16 a, I32x16 b) { return {_mm256_min_epi32(a.lo, b.lo), _mm256_min_epi32(a.hi, b.hi)}; }
inline I32x16 select_less(I32x16 a, I32x16 b, I32x16 x, I32x16 y) {
  return {_mm256_blendv_epi8(y.lo, x.lo, _mm256_cmpgt_epi32(b.lo, a.lo)),
          _mm256_blendv_epi8(y.hi, x.hi, _mm256_cmpgt_epi32(b.hi, a.hi))};
}

inline __m256i low_words(I32x16 a) {
  const I32x16 low = a & splat_i32(0xffff);
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(low.lo, low.hi), 0xd8);
}
inline __m256i half_words(F32x16 a) {
  return _mm256_set_m128i(_mm256_cvtps_ph(a.hi, kNearest), _mm256_cvtps_ph(a.lo, kNearest));
}
inline F32x16 from_half_words(__m256i a) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
}
inline __m256i low_half(I32x16 a) { return a.lo; }
inline __m256i high_half(I32x16 a) { return a.hi; }
inline __m256 low_half(F32x16 a) { return a.lo; }
inline __m256 high_half(F32x16 a) { return a.hi; }

#endif

// ---- 16-bit floats
inline I32x16 f32_bf16(F32x16 a) {
  const I32x16 u = bits(a), magnitude = u & splat_i32(0x7fffffff);
  const I32x16 rounded = shift_right<16>(u + splat_i32(0x7fff) + (shift_right<16>(u) & splat_i32(1)));
  return select_less(splat_i32(0x7f800000), magnitude, splat_i32(0x7fc0), rounded);
}
// (vcvtps2ph keeps the upper bits of a NaN's payload; numerics.h drops them)
inline __m256i f32_f16(F32x16 a) {
  const __m256i h = half_words(a), magnitude = _mm256_and_si256(h, _mm256_set1_epi16(0x7fff));
  const __m256i nan = _mm256_cmpgt_epi16(magnitude, _mm256_set1_epi16(0x7c00));
  return _mm256_andnot_si256(_mm256_and_si256(nan, _mm256_set1_epi16(0x01ff)), h);
}

template <DType dtype>
inline F32x16 load(const void* p) {
  if constexpr (dtype == DType::f32) return load_f32(static_cast<const float*>(p));
  if constexpr (dtype == DType::f16) return load_f16(p);
  if constexpr (dtype == DType::bf16) return as_float(shift_left<16>(load_u16(p)));
}
template <DType dtype>
inline void store(void* p, F32x16 a) {
  if constexpr (dtype == DType::f32) store_f32(static_cast<float*>(p), a);
  if constexpr (dtype == DType::f16) _mm256_storeu_si256(static_cast<__m256i*>(p), f32_f16(a));
  if constexpr (dtype == DType::bf16) _mm256_storeu_si256(static_cast<__m256i*>(p), low_words(f32_bf16(a)));
}
template <DType dtype>
inline F32x16 round_to(F32x16 a) {
  if constexpr (dtype == DType::f32) return a;
  if constexpr (dtype == DType::f16) return from_half_words(half_words(a));
  if constexpr (dtype == DType::bf16) return as_float(shift_left<16>(f32_bf16(a)));
}

// ---- tails: only `count` of the 16 elements exist
inline void copy_bytes(void* to, const void* from, int64_t bytes) {
  __builtin_memcpy(to, from, static_cast<size_t>(bytes));
}
// Lanes past `count` are 0.
template <DType dtype>
inline F32x16 load(const void* p, int count) {
  if (count == 16) return load<dtype>(p);
  alignas(64) char buffer[64] = {0};
  copy_bytes(buffer, p, count * dtype_bytes(dtype));
  return load<dtype>(buffer);
}
template <DType dtype>
inline void store(void* p, F32x16 a, int count) {
  if (count == 16) return store<dtype>(p, a);
  alignas(64) char buffer[64];
  store<dtype>(buffer, a);
  copy_bytes(p, buffer, count * dtype_bytes(dtype));
}

// ---- across lanes
inline int32_t max_lane(I32x16 a) {
  __m256i m = _mm256_max_epi32(low_half(a), high_half(a));
  __m128i q = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
  q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1));
  return _mm_cvtsi128_si32(q);
}
// Pairwise: lanes 0-7 to 8-15, 0-3 to 4-7, 0-1 to 2-3, 0 to 1 (quantize.h).
inline float sum_lanes(F32x16 a) {
  const __m256 m = _mm256_add_ps(low_half(a), high_half(a));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

template <DType dtype>
inline const void* at(const void* p, int64_t i) {
  return static_cast<const char*>(p) + i * dtype_bytes(dtype);
}
template <DType dtype>
inline void* at(void* p, int64_t i) {
  return static_cast<char*>(p) + i * dtype_bytes(dtype);
}

// Of n registers side by side: the operations of one wait for each other.
template <int n>
inline __attribute__((always_inline)) void exp_f32(F32x16 (&x)[n]) {
  F32x16 whole[n], r[n], p[n];
#define PW_EACH _Pragma("GCC unroll 4") for (int j = 0; j < n; ++j)
  PW_EACH x[j] = min(splat(88.0f), max(splat(-87.0f), x[j]));  // NaN passes both
  PW_EACH whole[j] = round_half_even(x[j] * splat(1.44269504088896341f));
  PW_EACH r[j] = fma(whole[j], splat(-0.693359375f), x[j]);
  PW_EACH r[j] = fma(whole[j], splat(2.12194440e-4f), r[j]);
  PW_EACH p[j] = fma(splat(1.9875691500e-4f), r[j], splat(1.3981999507e-3f));
  PW_EACH p[j] = fma(p[j], r[j], splat(8.3334519073e-3f));
  PW_EACH p[j] = fma(p[j], r[j], splat(4.1665795894e-2f));
  PW_EACH p[j] = fma(p[j], r[j], splat(1.6666665459e-1f));
  PW_EACH p[j] = fma(p[j], r[j], splat(5.0000001201e-1f));
  PW_EACH p[j] = fma(p[j], r[j] * r[j], r[j]) + splat(1.0f);
  PW_EACH x[j] = p[j] * as_float(shift_left<23>(to_int(whole[j]) + splat_i32(127)));
#undef PW_EACH
}
inline F32x16 exp_f32(F32x16 x) {
  F32x16 one[1] = {x};
  exp_f32(one);
  return one[0];
}

// Calls f(i, count) for runs of 16 elements, count < 16 in the last where k asks for it.
template <class F>
inline __attribute__((always_inline)) void for_each_16(int64_t k, F&& f) {
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) f(i, 16);
  if (i < k) f(i, static_cast<int>(k - i));
}

// Calls f(Tag<dtype>) for one of the three float types.
template <DType dtype>
struct Tag {
  static constexpr DType value = dtype;
};
template <class F>
inline auto with_dtype(DType dtype, F&& f) {
  if (dtype == DType::bf16) return f(Tag<DType::bf16>{});
  if (dtype == DType::f16) return f(Tag<DType::f16>{});
  return f(Tag<DType::f32>{});
}

}  // namespace
}  // namespace pennyweight::cpu
