// SPDX-License-Identifier: Apache-2.0
// f32x64.h: sixty-four floats, four registers of f32x16.h, from memory and back as a cache line of bytes.
//
// AVX-512 takes 32 bf16 values from a register in two operations, even ones and odd ones, instead of four in order; so
// four registers hold their 64 values in an order that belongs to the type they were loaded as, and pack_line undoes
// it.
#pragma once
#include "f32x16.h"

namespace pennyweight::cpu {
namespace {

#if defined(__AVX512F__)

struct Line {
  __m512i v;
};

inline __attribute__((always_inline)) void split_bf16(__m512i words, F32x16& even, F32x16& odd) {
  even = {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))};
  odd = {_mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(INT32_MIN >> 15)))};
}
template <DType dtype>
inline void load_64(const void* p, F32x16 (&v)[4]) {
  const char* from = static_cast<const char*>(p);
  if constexpr (dtype == DType::bf16) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) split_bf16(_mm512_loadu_si512(from + 64 * j), v[2 * j], v[2 * j + 1]);
  } else {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) v[j] = load<dtype>(from + 16 * j * dtype_bytes(dtype));
  }
}
// The upper halves of what lies as load_64<bf16> left it, in order: 64 bf16 values.
inline void store_upper_halves(void* p, const I32x16 (&v)[4]) {
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    const __m512i mask = _mm512_set1_epi32(0xffff), low = _mm512_srli_epi32(v[2 * j].v, 16);
    _mm512_storeu_si512(static_cast<char*>(p) + 64 * j, _mm512_ternarylogic_epi32(mask, low, v[2 * j + 1].v, 0xca));
  }
}
#if defined(__AVX512BF16__)
// 32 floats rounded to bf16, in order; subnormals become 0.
inline __attribute__((always_inline)) __m512i flushed_bf16(F32x16 even, F32x16 odd) {
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd.v, even.v);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, halves);
}
// Rounds what lies as load_64<bf16> left it, and stores it in order.
inline __attribute__((always_inline)) void store_flushed(void* p, const F32x16 (&v)[4]) {
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) _mm512_storeu_si512(static_cast<char*>(p) + 64 * j, flushed_bf16(v[2 * j], v[2 * j + 1]));
}
inline __attribute__((always_inline)) void round_flushed(F32x16 (&v)[4]) {
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) split_bf16(flushed_bf16(v[2 * j], v[2 * j + 1]), v[2 * j], v[2 * j + 1]);
}
#endif
// In order what lies as load_64<dtype> left it.
template <DType dtype>
inline void put_in_order(F32x16 (&v)[4]) {
  if constexpr (dtype != DType::bf16) return;
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
#pragma GCC unroll 2
  for (int j = 0; j < 4; j += 2) {
    const __m512 even = v[j].v, odd = v[j + 1].v;
    v[j] = {_mm512_permutex2var_ps(even, first, odd)};
    v[j + 1] = {_mm512_permutex2var_ps(even, second, odd)};
  }
}
// The bytes of values in -128 .. 127 that lie as load_64<dtype> left them, in order.
template <DType dtype>
inline Line pack_line(const I32x16 (&q)[4]) {
  // Lane i (128 bits): dwords q[0], q[1], q[2], q[3] of elements 4i .. 4i + 3, as bytes.
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(q[0].v, q[1].v), _mm512_packs_epi32(q[2].v, q[3].v));
  if constexpr (dtype == DType::bf16) {
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    const __m512i pairs = _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(order));
    return {_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), pairs)};
  }
  return {_mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes)};
}
// The low 7 bits of q, which lie as load_64<dtype> left them, in order, and 0x80 where the 64 words at p are negative.
template <DType dtype>
inline Line pack_line_with_signs(const I32x16 (&q)[4], const void* p) {
  const __m512i* words = static_cast<const __m512i*>(p);
  // Lane i: two times eight words, of 8i .. 8i + 7 and of 32 + 8i ..
  const __m512i signs = _mm512_packs_epi16(_mm512_loadu_si512(words), _mm512_loadu_si512(words + 1));
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  if constexpr (dtype == DType::bf16) {  // the low words of even elements and those of odd ones are words in order
    const auto join = [](I32x16 even, I32x16 odd) {
      const __m512i mask = _mm512_set1_epi32(0xffff), high = _mm512_slli_epi32(odd.v, 16);
      return _mm512_and_si512(_mm512_ternarylogic_epi32(mask, even.v, high, 0xca), _mm512_set1_epi16(0x7f));
    };
    const __m512i bytes = _mm512_packus_epi16(join(q[0], q[1]), join(q[2], q[3]));
    return {_mm512_permutexvar_epi64(order, _mm512_ternarylogic_epi32(bytes, signs, _mm512_set1_epi8(-128), 0xf8))};
  }
  const I32x16 low = splat_i32(0x7f);
  const Line line = pack_line<dtype>({q[0] & low, q[1] & low, q[2] & low, q[3] & low});
  const __m512i ordered = _mm512_permutexvar_epi64(order, signs);
  return {_mm512_ternarylogic_epi32(line.v, ordered, _mm512_set1_epi8(-128), 0xf8)};  // line | ordered & 0x80
}
inline void store_line(void* p, Line line) { _mm512_storeu_si512(p, line.v); }
// Past the caches; p begins a cache line.
inline void stream_line(void* p, Line line) { _mm512_stream_si512(static_cast<__m512i*>(p), line.v); }

// The larger of each 16-bit word of `most` and the magnitudes of the 32 words at p.
struct Words {
  __m512i v;
};
inline Words no_words() { return {_mm512_setzero_si512()}; }
inline Words widest_words(Words most, const void* p) {
  return {_mm512_max_epu16(most.v, _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi16(0x7fff)))};
}

#else

struct Line {
  __m256i lo, hi;
};

template <DType dtype>
inline void load_64(const void* p, F32x16 (&v)[4]) {
  for (int j = 0; j < 4; ++j) v[j] = load<dtype>(static_cast<const char*>(p) + 16 * j * dtype_bytes(dtype));
}
inline __m256i pack_half(I32x16 a, I32x16 b) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a.lo, a.hi), _mm256_packs_epi32(b.lo, b.hi));
  return _mm256_permutevar8x32_epi32(bytes, order);
}
template <DType>
inline Line pack_line(const I32x16 (&q)[4]) {
  return {pack_half(q[0], q[1]), pack_half(q[2], q[3])};
}
inline __m256i sign_half(const __m256i* words) {
  const __m256i bytes = _mm256_packs_epi16(_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1));
  return _mm256_and_si256(_mm256_permute4x64_epi64(bytes, 0xd8), _mm256_set1_epi8(-128));
}
template <DType dtype>
inline Line pack_line_with_signs(const I32x16 (&q)[4], const void* p) {
  const I32x16 low = splat_i32(0x7f);
  const Line line = pack_line<dtype>({q[0] & low, q[1] & low, q[2] & low, q[3] & low});
  const __m256i* words = static_cast<const __m256i*>(p);
  return {_mm256_or_si256(line.lo, sign_half(words)), _mm256_or_si256(line.hi, sign_half(words + 2))};
}
inline void store_line(void* p, Line line) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), line.lo);
  _mm256_storeu_si256(static_cast<__m256i*>(p) + 1, line.hi);
}
inline void stream_line(void* p, Line line) {
  _mm256_stream_si256(static_cast<__m256i*>(p), line.lo);
  _mm256_stream_si256(static_cast<__m256i*>(p) + 1, line.hi);
}

template <DType>
inline void put_in_order(F32x16 (&)[4]) {}

struct Words {
  __m256i v;
};
inline Words no_words() { return {_mm256_setzero_si256()}; }
inline Words widest_words(Words most, const void* p) {
  const __m256i* words = static_cast<const __m256i*>(p);
  const __m256i magnitude = _mm256_set1_epi16(0x7fff);
  most.v = _mm256_max_epu16(most.v, _mm256_and_si256(_mm256_loadu_si256(words), magnitude));
  return {_mm256_max_epu16(most.v, _mm256_and_si256(_mm256_loadu_si256(words + 1), magnitude))};
}

#endif

}  // namespace
}  // namespace pennyweight::cpu
