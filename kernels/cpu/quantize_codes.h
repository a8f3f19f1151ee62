// SPDX-License-Identifier: Apache-2.0
// quantize_codes.h: one row's scale and codes (quantize_row.h), 64 values at a time; included by quantize_kernels.h.
//
//   scale = max|v| / 127 or 448;   codes = round-half-even(v / scale);   v = x, or x / smooth
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
//
// Walk      pass 1 finds the amax (of 16-bit floats on their bits, where NaN and Inf win), pass 2 makes the codes and
//           fetches the next row meanwhile, where there is one
#pragma once
#include "f32x64.h"
#include "quantize_row.h"

namespace pennyweight::cpu {
namespace {

enum class Format { int8, fp8 };

// ---- where a row's codes go
struct Codes {
  void* row;
  bool stream;  // past the caches, in whole lines: row and k are multiples of 64
};

// ---- quotients
enum class Quotient { division, reciprocal };

struct Scale {
  F32x16 value, reciprocal, rest;
  explicit Scale(float s)
      : value(splat(s)), reciprocal(splat(1.0f / s)), rest(fnma(value, reciprocal, splat(1.0f)) * reciprocal) {}
};
inline bool has_reciprocal(float scale) { return scale >= 0x1p-100f && scale <= 0x1p80f; }

template <Quotient how>
inline F32x16 quotient(F32x16 v, const Scale& scale) {
  if constexpr (how == Quotient::division) return v / scale.value;
  return fma(v, scale.reciprocal, v * scale.rest);
}

// ---- codes of quotients; only a division by a subnormal scale gives one beyond the format
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

inline F32x16 magnitude(F32x16 v) { return as_float(bits(v) & splat_i32(0x7fffffff)); }

// x / smooth for 64 values, in order.
template <DType dtype>
inline void load_smoothed(const void* x, const float* smooth, F32x16 (&v)[4]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) v[j] = load<dtype>(at<dtype>(x, 16 * j)) / load_f32(smooth + 16 * j);
}

template <Format format, DType dtype, bool smoothed, Quotient how>
inline Line codes_of_64(const void* x, const float* smooth, const Scale& scale) {
  constexpr DType order = smoothed ? DType::f32 : dtype;
  constexpr bool signs_in_memory = dtype != DType::f32 && !smoothed;
  F32x16 v[4];
  if constexpr (smoothed)
    load_smoothed<dtype>(x, smooth, v);
  else
    load_64<dtype>(x, v);
  I32x16 q[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    if constexpr (format == Format::int8) {
      q[j] = int8_code<how>(quotient<how>(v[j], scale));
    } else {
      q[j] = e4m3_low_bits<how>(quotient<how>(magnitude(v[j]), scale));
      if constexpr (!signs_in_memory) q[j] = (q[j] & splat_i32(0x7f)) - shift_left<7>(shift_right<31>(bits(v[j])));
    }
  }
  if constexpr (format == Format::fp8 && signs_in_memory)
    return pack_line_with_signs<order>(q, x);
  else
    return pack_line<order>(q);
}

// Calls f(x, smooth, i, count) for runs of 64 elements; the last, where k asks for it, padded with zeros and ones.
template <DType dtype, class F>
inline __attribute__((always_inline)) void for_each_64(const ActivationRow& row, F&& f) {
  int64_t i = 0;
  for (; i + 64 <= row.k; i += 64) f(at<dtype>(row.x, i), row.smooth ? row.smooth + i : nullptr, i, int64_t{64});
  if (i == row.k) return;
  const int64_t left = row.k - i;
  alignas(64) char x[64 * 4] = {};
  alignas(64) float smooth[64];
  copy_bytes(x, at<dtype>(row.x, i), left * dtype_bytes(dtype));
  for (float& one : smooth) one = 1.0f;
  if (row.smooth) copy_bytes(smooth, row.smooth + i, left * 4);
  f(static_cast<const void*>(x), static_cast<const float*>(row.smooth ? smooth : nullptr), i, left);
}

// Bits of max|v|, as float32.
template <DType dtype, bool smoothed>
inline uint32_t row_amax(const ActivationRow& row) {
  if constexpr (dtype != DType::f32 && !smoothed) {
    Words most = no_words();
    for_each_64<dtype>(row, [&](const void* x, const float*, int64_t, int64_t) __attribute__((always_inline)) {
      most = widest_words(widest_words(most, x), at<dtype>(x, 32));
    });
    alignas(64) uint16_t lanes[sizeof most / 2];
    __builtin_memcpy(lanes, &most, sizeof most);
    uint16_t widest = 0;
    for (const uint16_t lane : lanes) widest = lane > widest ? lane : widest;
    return f32_bits(dtype == DType::bf16 ? bf16_f32(widest) : f16_f32(widest));
  } else {
    I32x16 most[4] = {splat_i32(0), splat_i32(0), splat_i32(0), splat_i32(0)};
    for_each_64<dtype>(row, [&](const void* x, const float* smooth, int64_t, int64_t) __attribute__((always_inline)) {
      F32x16 v[4];
      if constexpr (smoothed)
        load_smoothed<dtype>(x, smooth, v);
      else
        load_64<dtype>(x, v);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) most[j] = max(most[j], bits(magnitude(v[j])));
    });
    return static_cast<uint32_t>(max_lane(max(max(most[0], most[1]), max(most[2], most[3]))));
  }
}

// next: a row to be fetched meanwhile, or null.
template <Format format, DType dtype, bool smoothed, Quotient how>
void write_codes(const ActivationRow& row, float scale, const Codes& codes, const void* next) {
  const Scale by(scale);
  constexpr int64_t fetch = format == Format::int8 ? 128 : 64;  // INT8's pass is too short to ask for every line
  for_each_64<dtype>(row,
                     [&](const void* x, const float* smooth, int64_t i, int64_t count) __attribute__((always_inline)) {
                       const int64_t bytes = 64 * dtype_bytes(dtype);
                       for (int64_t line = 0; next && line < bytes; line += fetch)
                         _mm_prefetch(static_cast<const char*>(at<dtype>(next, i)) + line, _MM_HINT_T1);
                       const Line line = codes_of_64<format, dtype, smoothed, how>(x, smooth, by);
                       uint8_t* to = static_cast<uint8_t*>(codes.row) + i;
                       if (codes.stream) return stream_line(to, line);
                       if (count == 64) return store_line(to, line);
                       alignas(64) uint8_t bytes_of_line[64];
                       store_line(bytes_of_line, line);
                       copy_bytes(to, bytes_of_line, count);
                     });
  if (codes.stream) _mm_sfence();  // nothing else orders streamed stores
}

template <Format format, DType dtype, bool smoothed>
float quantize_row(const ActivationRow& row, const Codes& codes, const void* next) {
  const float scale = activation_scale(row_amax<dtype, smoothed>(row), format == Format::int8 ? 127.0f : 448.0f);
  constexpr bool exact = dtype != DType::f32 && !smoothed;
  if (!(scale > 0.0f))
    __builtin_memset(codes.row, 0, static_cast<size_t>(row.k));
  else if (exact && has_reciprocal(scale))
    write_codes<format, dtype, smoothed, exact ? Quotient::reciprocal : Quotient::division>(row, scale, codes, next);
  else
    write_codes<format, dtype, smoothed, Quotient::division>(row, scale, codes, next);
  return scale;
}

template <Format format, DType dtype>
float quantize_row(const ActivationRow& row, const Codes& codes, const void* next) {
  if (row.smooth) return quantize_row<format, dtype, true>(row, codes, next);
  return quantize_row<format, dtype, false>(row, codes, next);
}

}  // namespace
}  // namespace pennyweight::cpu
