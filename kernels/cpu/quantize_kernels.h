// SPDX-License-Identifier: Apache-2.0
// quantize_kernels.h: per-token quantization and what is fused with it, on sixteen lanes or 64; included by
// quantize_avx2.cpp and quantize_avx512vnni.cpp, which give it its instruction set.
//
//   v = x / smooth                                     quantize_per_token
//   v = round(w * round((x + r) * rsqrt(mean + eps)))  rms_norm_quantize
//   v = round(round(silu(gate)) * up)                  silu_mul_quantize
//   codes, scale = quantize(v)                         quantize_codes.h
// rms_norm and silu_mul give v itself.
//
// Shapes    x (M,K) any stride; codes (M,K); scale (M,); smooth, weight (K,)
// Needs     any M, K (the last K mod 64 elements go through a padded buffer)
// Walk      a row is one task. A fused op first writes v, rounded to x's type as it is, to a row of workspace (L1 or
//           L2), and quantizes that as any other row; so memory is read once and written once, past the caches where
//           all codes together exceed half of L3. A plain op fetches the next row while this one's codes are made.
// Numerics  bit for bit the plain loops: sixteen lanes of fused multiply-adds for the sum of squares, numerics.h's exp
//           operation by operation. bf16 is rounded without regard to NaN, whose upper half survives that unless its
//           lower half is nearly full, and what comes from 16-bit values has it empty; rows that hold one are done
//           again with NaN made canonical.
// Limit     memory for plain INT8 and FP8; arithmetic behind RMSNorm (about 28 operations a value) and SiLU (40)
// Tried     Zen 4, rows in L1 and L2, cycles per sixteen bf16 values, of one call's growth with K: INT8 4.6, FP8 8.9,
//           RMSNorm with residual and INT8 18, SiLU and INT8 30. Sixteen values at a time instead of 64, and a
//           reciprocal with a correction after it: 5.0, 9.5, 25, 39; with divisions, as ops on 16 rows: 10, 15, 43, 54.
//           SiLU's quotient from vrcp14ps, two corrections: 35, and not the bits of a division; 128 values at a time:
//           27, but the same on (8192, 8192). (8192, 8192), two threads, while a copy runs at 40 GB/s, ms: INT8 6.1,
//           FP8 6.4, RMSNorm 19, SiLU 20; a copy of as many bytes takes 5.0, 5.0, 11.5 and 8.4. (At 24 GB/s of reads
//           before: 5.9, 7.3, 24, 28.) The first read of a row runs at the memory's rate, the rest waits for nothing,
//           and the two do not overlap: fetching the next row meanwhile, in L2 (plain ops: 8.0 without), is held by the
//           24 lines that a core may wait for; every second line is better for INT8 (6.1 instead of 6.4) and worse for
//           FP8 (7.0 instead of 6.4); into L1 it is slower; finding the next row's amax along with this one's codes is
//           slower by a third (two rows of 16 KB push each other out of L1). Behind RMSNorm fetching gains nothing.
//           Huge pages: nothing. Ice Lake: codes written past the caches in whole lines gain 20 % over quarters of a
//           line.
// Reference kernels/reference/quantize.cpp
#pragma once
#include "pennyweight/device.h"
#include "pennyweight/quantize.h"
#include "quantize_codes.h"
#include "scratch.h"

namespace pennyweight::cpu {
namespace {

// Whether rows of k elements, each `bytes` long, are written past the caches: whole lines, and more than would stay.
inline bool goes_past_caches(const void* rows, int64_t m, int64_t k, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(rows) % 64 == 0 && k % 64 == 0 && m * k * bytes > device().l3_bytes / 2;
}
template <class Op>
inline Codes codes_of(const Op& op, int64_t m) {
  return {static_cast<uint8_t*>(op.codes) + m * op.k, goes_past_caches(op.codes, op.m, op.k, 1)};
}

// ---- plain
template <Format format>
float quantize_row(const ActivationRow& row, const Codes& codes, const void* next) {
  return with_dtype(row.dtype, [&](auto tag) { return quantize_row<format, decltype(tag)::value>(row, codes, next); });
}

template <Format format>
void quantize_per_token(const QuantizePerToken& op, const Executor& executor) {
  const int64_t stride = op.x_stride * dtype_bytes(op.x_dtype);
  parallel_for(executor, op.m, [&](int64_t m) {
    const char* x = static_cast<const char*>(op.x) + m * stride;
    const void* next = m + 1 < op.m ? x + stride : nullptr;
    op.scale[m] = quantize_row<format>({x, op.smooth, op.k, op.x_dtype}, codes_of(op, m), next);
  });
}

// ---- fused: v, of x's type, in a row of workspace
template <DType dtype>
inline void* value_row(int64_t k) {
  return scratch(Slot::tile, round_up(k, 64) * dtype_bytes(dtype));
}

enum class Nan { canonical, whatever };  // what becomes of NaN that are rounded to bf16

// bf16 in the upper half; the lower one is anything.
template <Nan nan>
inline I32x16 rounded_bits(F32x16 v) {
  const I32x16 u = bits(v);
  if constexpr (nan == Nan::canonical) return shift_left<16>(f32_bf16(v));
  return u + splat_i32(0x7fff) + (shift_right<16>(u) & splat_i32(1));
}
template <DType dtype, Nan nan>
inline F32x16 round_value(F32x16 v) {
  if constexpr (dtype == DType::bf16) return as_float(rounded_bits<nan>(v) & splat_i32(INT32_MIN >> 15));
  return round_to<dtype>(v);
}

// Values of `dtype` as floats, n registers of them: 64, as load_64 leaves them, or `count` of 16, the rest 0.
template <DType dtype, int n>
struct Values {
  static constexpr int width = n;
  F32x16 v[n];

  static Values load(const void* p, int count) {
    Values out;
    if constexpr (n == 4)
      load_64<dtype>(p, out.v);
    else
      out.v[0] = cpu::load<dtype>(p, count);
    return out;
  }
  // Rounds them in place.
  template <Nan nan>
  void round() {
    each([](F32x16 a) { return round_value<dtype, nan>(a); });
  }
  // Stores values that are rounded already.
  void store(void* p, int count) const {
    if constexpr (dtype == DType::bf16) {
      I32x16 upper[n];
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) upper[j] = bits(v[j]);
      store_upper(p, upper, count);
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) cpu::store<dtype>(at<dtype>(p, 16 * j), v[j], count);
    }
  }
  // Rounds and stores them.
  template <Nan nan>
  void store(void* p, int count) const {
    if constexpr (dtype == DType::bf16) {
      I32x16 upper[n];
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) upper[j] = rounded_bits<nan>(v[j]);
      store_upper(p, upper, count);
    } else {
      store(p, count);
    }
  }
  template <class F>
  inline __attribute__((always_inline)) void each(F&& f) {
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) v[j] = f(v[j]);
  }
  template <class F>
  inline __attribute__((always_inline)) void each(const Values& other, F&& f) {
#pragma GCC unroll 4
    for (int j = 0; j < n; ++j) v[j] = f(v[j], other.v[j]);
  }

 private:
  static void store_upper(void* p, const I32x16 (&upper)[n], int count) {
    if constexpr (n == 4) return store_upper_halves(p, upper);
    const __m256i words = low_words(shift_right<16>(upper[0]));
    if (count == 16) return _mm256_storeu_si256(static_cast<__m256i*>(p), words);
    copy_bytes(p, &words, count * 2);
  }
};

// Calls f(Side<n>, i, count) for runs of elements: n registers side by side while there are as many, then of 16.
template <int count>
struct Side {
  static constexpr int n = count;
};
template <class F>
inline __attribute__((always_inline)) void for_each_run(int64_t k, F&& f) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 64 <= k; i += 64) f(Side<4>{}, i, 16);
#endif  // AVX2 has no registers for more than one
  for (; i + 16 <= k; i += 16) f(Side<1>{}, i, 16);
  if (i < k) f(Side<1>{}, i, static_cast<int>(k - i));
}

// Whole cache lines, past the caches.
inline void copy_around_caches(void* to, const void* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    Line line;
    __builtin_memcpy(&line, static_cast<const char*>(from) + i, 64);
    stream_line(static_cast<char*>(to) + i, line);
  }
  _mm_sfence();
}

// h = x + residual, stored as op.hidden; without a residual x itself. Gives the sum of squares.
template <DType dtype, Nan nan, class Op>
inline float add_residual(const Op& op, int64_t m, void* h) {
  const void* x = at<dtype>(op.x, m * op.x_stride);
  const void* residual = at<dtype>(op.residual, m * op.residual_stride);
  F32x16 squares = splat(0.0f);
  for_each_run(op.k, [&](auto side, int64_t i, int count) __attribute__((always_inline)) {
    using Run = Values<dtype, decltype(side)::n>;
    Run v = Run::load(at<dtype>(x, i), count);
    if (op.residual) {
      v.each(Run::load(at<dtype>(residual, i), count), [](F32x16 a, F32x16 b) { return a + b; });
      v.template round<nan>();
      v.store(at<dtype>(h, i), count);
    }
    if constexpr (Run::width == 4) put_in_order<dtype>(v.v);
    for (const F32x16 one : v.v) squares = fma(one, one, squares);
  });
  return sum_lanes(squares);
}

// normed = round(weight * round(h * r)).
template <DType dtype, Nan nan, class Op>
inline void scale_row(const Op& op, const void* h, float r, void* normed) {
  for_each_run(op.k, [&](auto side, int64_t i, int count) __attribute__((always_inline)) {
    using Run = Values<dtype, decltype(side)::n>;
    Run v = Run::load(at<dtype>(h, i), count);
    v.each([r](F32x16 a) { return a * splat(r); });
    v.template round<nan>();
    v.each(Run::load(at<dtype>(op.weight, i), count), [](F32x16 a, F32x16 weight) { return weight * a; });
    v.template store<nan>(at<dtype>(normed, i), count);
  });
}

// False where the row holds, or came to, Inf or NaN.
template <DType dtype, Nan nan, class Op>
inline bool norm_row(const Op& op, int64_t m, void* normed) {
  const void* x = at<dtype>(op.x, m * op.x_stride);
  void* hidden = at<dtype>(op.hidden, m * op.k);
  const bool around = op.residual && goes_past_caches(op.hidden, op.m, op.k, dtype_bytes(dtype));
  void* h = around ? normed : hidden;  // then in workspace first
  const float squares = add_residual<dtype, nan>(op, m, h);
  if (around) copy_around_caches(hidden, h, op.k * dtype_bytes(dtype));
  const float mean = squares / static_cast<float>(op.k);
  const float r = 1.0f / __builtin_sqrtf(mean + static_cast<float>(op.eps));
  scale_row<dtype, nan>(op, op.residual ? h : x, r, normed);
  return squares - squares == 0.0f && r - r == 0.0f;
}

template <DType dtype>
void rms_norm_row(const RmsNorm& op, int64_t m) {
  norm_row<dtype, Nan::canonical>(op, m, at<dtype>(op.normed, m * op.k));
}

template <Format format, DType dtype>
void rms_norm_quantize_row(const RmsNormQuantize& op, int64_t m) {
  void* normed = value_row<dtype>(op.k);
  if (!norm_row<dtype, Nan::whatever>(op, m, normed)) norm_row<dtype, Nan::canonical>(op, m, normed);
  op.scale[m] = quantize_row<format, dtype>({normed, nullptr, op.k, dtype}, codes_of(op, m), nullptr);
}

template <DType dtype, Nan nan, class Op>
inline void silu_mul_row(const Op& op, int64_t m, void* v) {
  const void* gate = at<dtype>(op.gate_up, m * op.x_stride);
  const void* up = at<dtype>(op.gate_up, m * op.x_stride + op.k);
  for_each_run(op.k, [&](auto side, int64_t i, int count) __attribute__((always_inline)) {
    using Run = Values<dtype, decltype(side)::n>;
    Run value = Run::load(at<dtype>(gate, i), count), e = value;
    e.each([](F32x16 g) { return as_float(bits(g) ^ splat_i32(INT32_MIN)); });
    exp_f32(e.v);
    value.each(e, [](F32x16 g, F32x16 exp_of_minus_g) { return g / (splat(1.0f) + exp_of_minus_g); });
    value.template round<nan>();
    value.each(Run::load(at<dtype>(up, i), count), [](F32x16 silu, F32x16 by) { return silu * by; });
    value.template store<nan>(at<dtype>(v, i), count);
  });
}

template <Format format, DType dtype>
void silu_mul_quantize_row(const SiluMulQuantize& op, int64_t m) {
  void* v = value_row<dtype>(op.k);
  silu_mul_row<dtype, Nan::whatever>(op, m, v);
  op.scale[m] = quantize_row<format, dtype>({v, nullptr, op.k, dtype}, codes_of(op, m), nullptr);
}

inline void rms_norm_rows(const RmsNorm& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    parallel_for(executor, op.m, [&](int64_t m) { rms_norm_row<decltype(tag)::value>(op, m); });
  });
}
template <Format format>
void rms_norm_quantize(const RmsNormQuantize& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    parallel_for(executor, op.m, [&](int64_t m) { rms_norm_quantize_row<format, decltype(tag)::value>(op, m); });
  });
}
template <Format format>
void silu_mul_quantize(const SiluMulQuantize& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    parallel_for(executor, op.m, [&](int64_t m) { silu_mul_quantize_row<format, decltype(tag)::value>(op, m); });
  });
}

inline void silu_mul_rows(const SiluMul& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    parallel_for(executor, op.m,
                 [&](int64_t m) { silu_mul_row<dtype, Nan::canonical>(op, m, at<dtype>(op.y, m * op.k)); });
  });
}

}  // namespace
}  // namespace pennyweight::cpu

// The exported functions of one instruction set.
#define PW_QUANTIZE_ENTRIES                                                         \
  float quantize_row_int8(const ActivationRow& row, int8_t* codes) {                \
    return quantize_row<Format::int8>(row, {codes, false}, nullptr);                \
  }                                                                                 \
  float quantize_row_fp8(const ActivationRow& row, uint8_t* codes) {                \
    return quantize_row<Format::fp8>(row, {codes, false}, nullptr);                 \
  }                                                                                 \
  void quantize_per_token_int8(const QuantizePerTokenInt8& op, const Executor& e) { \
    quantize_per_token<Format::int8>(op, e);                                        \
  }                                                                                 \
  void quantize_per_token_fp8(const QuantizePerTokenFp8& op, const Executor& e) {   \
    quantize_per_token<Format::fp8>(op, e);                                         \
  }                                                                                 \
  void rms_norm(const RmsNorm& op, const Executor& e) { rms_norm_rows(op, e); }     \
  void rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const Executor& e) {   \
    rms_norm_quantize<Format::int8>(op, e);                                         \
  }                                                                                 \
  void rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const Executor& e) {     \
    rms_norm_quantize<Format::fp8>(op, e);                                          \
  }                                                                                 \
  void silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const Executor& e) {   \
    silu_mul_quantize<Format::int8>(op, e);                                         \
  }                                                                                 \
  void silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const Executor& e) {     \
    silu_mul_quantize<Format::fp8>(op, e);                                          \
  }                                                                                 \
  void silu_mul(const SiluMul& op, const Executor& e) { silu_mul_rows(op, e); }
