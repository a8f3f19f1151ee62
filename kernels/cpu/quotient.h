// SPDX-License-Identifier: Apache-2.0
// quotient.h: values divided by their row's scale, and the codes of the quotients, on sixteen lanes.
//
// Quotient  A division takes ten cycles per sixteen values on Zen 4, three times all the rest. With r = RN(1 / scale)
//           and e = RN(RN(1 - r scale) r), what is missing of the reciprocal, RN(v r + RN(v e)) is the quotient of a
//           division for every pair of bf16 values and of f16 values (tests/kernels/test_quantize_rows.py goes through
//           them: a row's scale comes from a value of the same type). For float32 that is not shown, nor after a
//           division by `smooth`, nor where a scale is so small that quotients, or so large that e, underflow: these
//           are divided.
// E4M3      Of a magnitude q with exponent e = max(exponent of q, -6), E = 2^e: adding E 2^20 rounds it, half to even,
//           to 3 bits below E, and leaves these in the low bits of the sum. E (2^20 + 3) leaves them 24 larger, so that
//           with the sum's own exponent added the low 7 bits are the code:
//
//             sum = E (2^20 + 3) + q         bits 30..23: e + 147        bits 5..0: n + 24,  n = 8 .. 16 (below 2^-6: 0
//             ..) sum + (sum >> 20)              bits 6..0:   n + 8e + 48 = the code, bits above it are no part of it
#pragma once
#include "f32x16.h"

namespace pennyweight::cpu {
namespace {

enum class Quotient { division, reciprocal };

struct Scale {
  F32x16 value, reciprocal, rest;
  Scale() = default;
  explicit Scale(float s)
      : value(splat(s)), reciprocal(splat(1.0f / s)), rest(fnma(value, reciprocal, splat(1.0f)) * reciprocal) {}
};
inline bool has_reciprocal(float scale) { return scale >= 0x1p-100f && scale <= 0x1p80f; }

template <Quotient how>
inline F32x16 quotient(F32x16 v, const Scale& scale) {
  if constexpr (how == Quotient::division) return v / scale.value;
  return fma(v, scale.reciprocal, v * scale.rest);
}

inline F32x16 magnitude(F32x16 v) { return as_float(bits(v) & splat_i32(0x7fffffff)); }

// Only a division by a subnormal scale gives a quotient beyond the format.
template <Quotient how>
inline I32x16 int8_code(F32x16 q) {
  const I32x16 n = to_int(q);
  return how == Quotient::division ? max(splat_i32(-127), min(splat_i32(127), n)) : n;
}
template <Quotient how>
inline I32x16 e4m3_low_bits(F32x16 q) {  // of a magnitude: the code is in the low 7 bits
  if constexpr (how == Quotient::division) q = min(q, splat(448.0f));
  const I32x16 exponent = max(bits(q) & splat_i32(0x7f800000), splat_i32(0x3c800000));
  const I32x16 sum = bits(fma(as_float(exponent), splat(0x1p20f + 3.0f), q));
  return sum + shift_right<20>(sum);
}

}  // namespace
}  // namespace pennyweight::cpu
