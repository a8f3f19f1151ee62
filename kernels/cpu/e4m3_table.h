// SPDX-License-Identifier: Apache-2.0
// e4m3_table.h: E4M3 codes of bf16 values by table, 64 bytes at a time (AVX512-VBMI).
//
// For one scale, a quotient's significand depends on the value's seven bits of significand alone, and its exponent
// follows the value's: where quotients are normal numbers of E4M3 (2^-6 on), the code of (exponent, significand) is
//
//     table[significand] + 8 (exponent - first)      first: the lowest exponent whose quotients are all normal
//
// with a table of 128 bytes, two registers, made of codes that were computed at the exponent 6 above `first`. Below
// `first` - 5 codes are 0. In between, where quotients are below 2^-5, they are round-half-even(512 q), computed where
// a line holds such a value.
//
// Worth     Zen 4, cycles per sixteen values in L1: 1.9 instead of 6.9; making the table takes 60 cycles
#pragma once
#include "f32x64.h"
#include "quotient.h"

namespace pennyweight::cpu {
namespace {

#if defined(__AVX512VBMI__)

struct Bytes {
  alignas(64) uint8_t at[64];
};
constexpr Bytes every_other(int first) {
  Bytes out{};
  for (int i = 0; i < 64; ++i) out.at[i] = static_cast<uint8_t>(first + 2 * i);
  return out;
}

class E4m3Table {
 public:
  E4m3Table() = default;
  // has_reciprocal(scale)
  E4m3Table(float scale, const Scale& by) {
    const int exponent = static_cast<int>(f32_bits(scale) >> 23) + 1;  // there quotients are in (1, 4)
    alignas(64) uint8_t codes[128];
    for (int i = 0; i < 128; i += 16) {
      const I32x16 lane = {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
      const F32x16 v = as_float(shift_left<16>(lane + splat_i32((exponent << 7) + i)));
      const I32x16 code = e4m3_low_bits<Quotient::reciprocal>(quotient<Quotient::reciprocal>(v, by));
      _mm_store_si128(reinterpret_cast<__m128i*>(codes + i),
                      _mm512_cvtepi32_epi8(((code & splat_i32(0x7f)) - splat_i32(8 * 6)).v));
    }
    low_ = _mm512_load_si512(codes);
    high_ = _mm512_load_si512(codes + 64);
    first_ = _mm512_set1_epi8(static_cast<char>(exponent - 6));
  }

  // Codes of the 64 values at x.
  Line codes(const void* x, const Scale& by) const {
    static constexpr Bytes kEven = every_other(0), kOdd = every_other(1);
    const __m512i* words = static_cast<const __m512i*>(x);
    const __m512i w0 = _mm512_loadu_si512(words), w1 = _mm512_loadu_si512(words + 1);
    const __m512i even = _mm512_load_si512(kEven.at), odd = _mm512_load_si512(kOdd.at);
    const __m512i significand = _mm512_permutex2var_epi8(w0, even, w1);  // and an exponent's bit, which no index sees
    const __m512i signs = _mm512_permutex2var_epi8(w0, odd, w1);
    const __m512i exponent = _mm512_permutex2var_epi8(_mm512_add_epi16(w0, w0), odd, _mm512_add_epi16(w1, w1));
    const __m512i above = _mm512_sub_epi8(exponent, first_);  // 0 .. 14; 251 .. 255 below `first`; in between far below
    const __m512i normal = _mm512_add_epi8(_mm512_permutex2var_epi8(low_, significand, high_),
                                           _mm512_slli_epi16(_mm512_and_si512(above, _mm512_set1_epi8(31)), 3));
    const __mmask64 is_normal = _mm512_cmple_epu8_mask(above, _mm512_set1_epi8(31));
    __m512i code = normal;
    if (__builtin_expect(is_normal != ~__mmask64{0}, 0)) {
      const __mmask64 is_subnormal = _mm512_cmpge_epu8_mask(above, _mm512_set1_epi8(-5));
      code = _mm512_maskz_mov_epi8(is_normal, normal);
      if (is_subnormal) code = _mm512_mask_mov_epi8(code, is_subnormal, subnormal_codes(x, by).v);
    }
    return {_mm512_ternarylogic_epi32(code, signs, _mm512_set1_epi8(-128), 0xf8)};  // code | signs & 0x80
  }

 private:
  static Line subnormal_codes(const void* x, const Scale& by) {
    F32x16 v[4];
    load_64<DType::bf16>(x, v);
    I32x16 q[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)  // the low bits of a sum whose unit is 2^-9
      q[j] = bits(quotient<Quotient::reciprocal>(magnitude(v[j]), by) + splat(0x1p14f)) & splat_i32(0x1f);
    return pack_line<DType::bf16>(q);
  }

  __m512i low_, high_, first_;
};

#endif

}  // namespace
}  // namespace pennyweight::cpu
