// SPDX-License-Identifier: Apache-2.0
// silu_bf16.h: silu(g) = g / (1 + exp(-g)) of bf16 values, on its way to bf16 (AVX-512).
//
// What it gives, rounded to bf16, is what numerics.h's exp and a division give, rounded to bf16, for each of the 65536
// values (tests/kernels/test_quantize_rows.py); before rounding it is not. With a = -16 g log2(e) = 16 n + k + f,
// k = 0 .. 15, |f| <= 1/2:
//
//     exp(-g) = 2^n 2^(k/16) (1 + c1 f + c2 f^2)     2^(k/16) from a table in one register, less k in the exponent's
//                                                    place, where 16 n + k is then added
//     1 / d   = y (1 + (1 - d y) ..), y = vrcp14ps   one correction: 2^-28
//
// c1 and c2 were searched for: errors of exp move 1 + exp(-g) across the middle between two bf16 values at
// g = 2^-7, -2^-8 and 5.9375; with these no value is closer than 2^-27 to where it would come out otherwise, so that
// any reciprocal that is good to 2^-13.5 will do.
//
// Worth     Zen 4, cycles per sixteen values, with the product that follows: 18 instead of 25, and 14 where AVX512-BF16
//           rounds
#pragma once
#include "f32x16.h"

namespace pennyweight::cpu {
namespace {

#if defined(__AVX512F__)

// g (n registers) <- silu(g). NaN stays NaN; of infinities something that is not finite is left.
template <int n>
inline __attribute__((always_inline)) void silu_bf16(F32x16 (&g)[n]) {
  // bits of 2^(k/16), less k << 19
  const __m512i powers =
      _mm512_setr_epi32(0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
                        0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c, 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d);
  const F32x16 to_sixteenths = splat(-0x1.715476p+4f), whole = splat(0x1.8p23f);
  F32x16 x[n], f[n], d[n], q[n];
  I32x16 power[n];
#define PW_EACH _Pragma("GCC unroll 4") for (int j = 0; j < n; ++j)
  PW_EACH x[j] = min(splat(30.0f), max(splat(-88.0f), g[j]));  // exp(-30) is nothing beside 1; exp(88) as in numerics.h
  PW_EACH d[j] = fma(x[j], to_sixteenths, whole);              // 16 n + k in the low bits
  PW_EACH power[j] = {_mm512_permutexvar_epi32(bits(d[j]).v, powers)};
  PW_EACH power[j] = power[j] + shift_left<19>(bits(d[j]));
  PW_EACH f[j] = fma(x[j], to_sixteenths, whole - d[j]);
  PW_EACH q[j] = fma(fma(splat(0x1.ecf74ap-11f), f[j], splat(0x1.62e518p-5f)), f[j], splat(1.0f));
  PW_EACH d[j] = fma(as_float(power[j]), q[j], splat(1.0f));
  PW_EACH f[j] = {_mm512_rcp14_ps(d[j].v)};
  PW_EACH q[j] = g[j] * f[j];
  PW_EACH q[j] = fma(fnma(q[j], d[j], g[j]), f[j], q[j]);
  // q | g & sign: the correction of -0 is 0, and their sum 0
  PW_EACH g[j] = as_float(I32x16{_mm512_ternarylogic_epi32(bits(q[j]).v, bits(g[j]).v, splat_i32(INT32_MIN).v, 0xf8)});
#undef PW_EACH
}

#endif

}  // namespace
}  // namespace pennyweight::cpu
