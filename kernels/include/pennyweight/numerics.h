// SPDX-License-Identifier: Apache-2.0
// numerics.h: the arithmetic that every implementation shares, once, for host and device.
//
// Everything is `static`: a file compiled for one instruction set keeps its own copy, and no other file can be linked
// against it. Files are compiled without contraction of a * b + c; a fused multiply-add is written as fma_f32.
#pragma once
#include <cstdint>

#include "pennyweight/formats.h"

#if defined(__CUDACC__)
#define PW_HD __host__ __device__
#else
#define PW_HD
#endif

namespace pennyweight {

static PW_HD inline uint32_t f32_bits(float v) {
  union {
    float f;
    uint32_t u;
  } c;
  c.f = v;
  return c.u;
}
static PW_HD inline float bits_f32(uint32_t v) {
  union {
    uint32_t u;
    float f;
  } c;
  c.u = v;
  return c.f;
}
static PW_HD inline float fma_f32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static PW_HD inline float round_half_even(float v) { return __builtin_rintf(v); }
static PW_HD inline bool is_finite(float v) { return (f32_bits(v) & 0x7f800000u) != 0x7f800000u; }
static PW_HD inline float nan_f32() { return bits_f32(0x7fc00000u); }

// ---- 16-bit floats (round half to even; NaN stays NaN)
static PW_HD inline float bf16_f32(uint16_t v) { return bits_f32(static_cast<uint32_t>(v) << 16); }
static PW_HD inline uint16_t f32_bf16(float v) {
  const uint32_t u = f32_bits(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
static PW_HD inline float f16_f32(uint16_t v) {
  const uint32_t sign = static_cast<uint32_t>(v & 0x8000u) << 16, magnitude = v & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_f32(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x400u) return bits_f32(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  return bits_f32(sign | f32_bits(subnormal));
}
static PW_HD inline uint16_t f32_f16(float v) {
  const uint32_t u = f32_bits(v), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more round to Inf
  if (a >= 0x38800000u) return static_cast<uint16_t>(sign | ((a + 0xfffu + (a >> 13 & 1u) - (112u << 23)) >> 13));
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(round_half_even(bits_f32(a) * 0x1p24f)));
}

static PW_HD inline float load_f32(const void* p, DType t, int64_t i) {
  if (t == DType::f32) return static_cast<const float*>(p)[i];
  const uint16_t v = static_cast<const uint16_t*>(p)[i];
  return t == DType::bf16 ? bf16_f32(v) : f16_f32(v);
}
static PW_HD inline void store_f32(void* p, DType t, int64_t i, float v) {
  if (t == DType::f32)
    static_cast<float*>(p)[i] = v;
  else
    static_cast<uint16_t*>(p)[i] = t == DType::bf16 ? f32_bf16(v) : f32_f16(v);
}
// v as a value of dtype t
static PW_HD inline float round_to(DType t, float v) {
  if (t == DType::f32) return v;
  return t == DType::bf16 ? bf16_f32(f32_bf16(v)) : f16_f32(f32_f16(v));
}
static PW_HD inline float dtype_eps(DType t) {
  return t == DType::f32 ? 0x1p-23f : t == DType::bf16 ? 0x1p-7f : 0x1p-10f;
}

// ---- FP8 E4M3 (finite range +-448, one NaN per sign, no Inf)
static PW_HD inline float e4m3_f32(uint8_t v) {
  const uint32_t sign = static_cast<uint32_t>(v & 0x80u) << 24, e = v >> 3 & 15u, m = v & 7u;
  if ((v & 0x7fu) == 0x7fu) return bits_f32(sign | 0x7fc00000u);
  if (e == 0) return bits_f32(sign | f32_bits(static_cast<float>(m) * 0x1p-9f));
  return bits_f32(sign | (e + 120u) << 23 | m << 20);
}
static PW_HD inline uint8_t f32_e4m3(float v) {
  const uint32_t u = f32_bits(v), sign = u >> 24 & 0x80u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (a >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448 and more saturate
  if (a < 0x3c800000u)                                              // below 2^-6: multiples of 2^-9
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(round_half_even(bits_f32(a) * 0x1p9f)));
  const uint32_t r = (a + 0x7ffffu + (a >> 20 & 1u)) >> 20;  // exponent and 3 bits
  const uint32_t code = r - (120u << 3);
  return static_cast<uint8_t>(sign | (code > 0x7eu ? 0x7eu : code));
}

// ---- per-token activation scales; amax_bits = max over the row of the bits of |v|, so that NaN and Inf win
static PW_HD inline float activation_scale(uint32_t amax_bits, float range) {
  return amax_bits >= 0x7f800000u ? nan_f32() : bits_f32(amax_bits) / range;
}
static PW_HD inline int8_t quantize_int8(float v, float scale) {
  if (!(scale > 0.0f)) return 0;  // zero and NaN scales
  float q = round_half_even(v / scale);
  q = q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q;
  return static_cast<int8_t>(q);
}
static PW_HD inline uint8_t quantize_e4m3(float v, float scale) {
  if (!(scale > 0.0f)) return 0;
  return f32_e4m3(v / scale);
}

// ---- exp for SiLU: Cephes' polynomial after reduction by ln 2 in two parts; <= 2 ulp on [-87, 88], clamped outside
static PW_HD inline float exp_f32(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;  // NaN passes both
  const float n = round_half_even(x * 1.44269504088896341f);
  float r = fma_f32(n, -0.693359375f, x);
  r = fma_f32(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fma_f32(p, r, 1.3981999507e-3f);
  p = fma_f32(p, r, 8.3334519073e-3f);
  p = fma_f32(p, r, 4.1665795894e-2f);
  p = fma_f32(p, r, 1.6666665459e-1f);
  p = fma_f32(p, r, 5.0000001201e-1f);
  p = fma_f32(p, r * r, r) + 1.0f;
  if (!(n == n)) return n;
  return p * bits_f32(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23);
}
static PW_HD inline float silu_f32(float g) { return g / (1.0f + exp_f32(-g)); }

}  // namespace pennyweight
