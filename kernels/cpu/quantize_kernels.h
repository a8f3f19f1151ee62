// SPDX-License-Identifier: Apache-2.0
// quantize_kernels.h: per-token quantization and what is fused with it, on sixteen lanes; included by
// quantize_avx2.cpp and quantize_avx512vnni.cpp, which give it its instruction set.
//
//   v = x / smooth                                   quantize_per_token        (never stored: computed in both passes)
//   v = round(w * round((x + r) * rsqrt(mean + eps)))  rms_norm_quantize       (kept as float32 in a row of workspace)
//   v = round(round(silu(gate)) * up)                silu_mul_quantize         (the same)
//   scale = max|v| / 127 or 448;   codes = round-half-even(v / scale)
//
// Shapes    x (M,K) any stride; codes (M,K); scale (M,); smooth, weight (K,)
// Needs     any M, K (the last K mod 16 elements go through a zeroed buffer)
// Walk      a row is one task: pass 1 finds the amax (and the fused value), pass 2 divides and rounds. The row of
//           workspace (4K bytes) stays in L1 or L2, so memory is read once and written once.
// Numerics  bit for bit the plain loops: true division, sixteen lanes of fused multiply-adds for the sum of squares,
//           numerics.h's exp operation by operation. The amax is taken on the bits of |v|, where NaN and Inf win.
// Limit     the division: plain INT8 on Zen 4 takes 9 cycles per sixteen values, about what one vdivps takes
// Tried     Zen 4, one thread, (256, 4096) bf16, thread CPU time in us, AVX-512 / AVX2 / plain loops: INT8 160 / 186 /
//           2070, FP8 264 / 352 / 2280, RMSNorm with residual 672 / 722 / 8875, SiLU 863 / 1132 / 16339.
//           Ice Lake, AVX-512, cycles per sixteen values: INT8 12 in cache, 20 from memory. Multiplying by the scale's
//           reciprocal with two corrections (the same bits, five operations for one division): no gain. Fetching the
//           next row during pass 2: within 5 %, either way.
// Reference kernels/reference/quantize.cpp
#pragma once
#include "f32x16.h"
#include "pennyweight/quantize.h"
#include "quantize_row.h"
#include "scratch.h"

namespace pennyweight::cpu {
namespace {

enum class Format { int8, fp8 };

// ---- codes of 16 values, scale > 0
inline __m128i int8_codes(F32x16 v, F32x16 scale) {
  const I32x16 q = to_int(v / scale);  // |q| < 2^8 even where the scale is subnormal
  return low_bytes(max(splat_i32(-127), min(splat_i32(127), q)));
}
inline __m128i e4m3_codes(F32x16 v, F32x16 scale) {
  const I32x16 u = bits(v / scale), a = u & splat_i32(0x7fffffff);
  const I32x16 sign = shift_right<24>(u) & splat_i32(0x80);
  const I32x16 subnormal = to_int(as_float(a) * splat(0x1p9f));
  const I32x16 rounded = shift_right<20>(a + splat_i32(0x7ffff) + (shift_right<20>(a) & splat_i32(1)));
  const I32x16 normal = min(rounded + splat_i32(-(120 << 3)), splat_i32(0x7e));
  return low_bytes(select_less(a, splat_i32(0x3c800000), subnormal, normal) | sign);
}

template <Format format>
inline void store_codes(void* codes, int64_t i, int count, F32x16 v, F32x16 scale) {
  const __m128i c = format == Format::int8 ? int8_codes(v, scale) : e4m3_codes(v, scale);
  void* p = static_cast<uint8_t*>(codes) + i;
  if (count == 16) return _mm_storeu_si128(static_cast<__m128i*>(p), c);
  copy_bytes(p, &c, count);
}

inline I32x16 wider(I32x16 amax, F32x16 v) { return max(amax, bits(v) & splat_i32(0x7fffffff)); }

// Scale (returned) and codes of a row whose amax is known; value(i, count) gives 16 of its elements.
template <Format format, class Value>
inline float quantize_values(I32x16 amax, int64_t k, void* codes, Value&& value) {
  const uint32_t amax_bits = static_cast<uint32_t>(max_lane(amax));
  const float scale = activation_scale(amax_bits, format == Format::int8 ? 127.0f : 448.0f);
  if (!(scale > 0.0f)) {
    __builtin_memset(codes, 0, static_cast<size_t>(k));
    return scale;
  }
  const F32x16 divisor = splat(scale);
  for_each_16(k, [&](int64_t i, int count) __attribute__((always_inline)) {
    store_codes<format>(codes, i, count, value(i, count), divisor);
  });
  return scale;
}

template <DType dtype>
inline const void* at(const void* p, int64_t i) {
  return static_cast<const char*>(p) + i * dtype_bytes(dtype);
}
template <DType dtype>
inline void* at(void* p, int64_t i) {
  return static_cast<char*>(p) + i * dtype_bytes(dtype);
}

// ---- plain
template <Format format, DType dtype>
float quantize_row(const ActivationRow& row, void* codes) {
  auto quantize = [&](auto&& value) __attribute__((always_inline)) {
    I32x16 amax = splat_i32(0);
    for_each_16(row.k,
                [&](int64_t i, int count) __attribute__((always_inline)) { amax = wider(amax, value(i, count)); });
    return quantize_values<format>(amax, row.k, codes, value);
  };
  auto x = [&](int64_t i, int count) __attribute__((always_inline)) { return load<dtype>(at<dtype>(row.x, i), count); };
  if (!row.smooth) return quantize(x);
  return quantize([&](int64_t i, int count) __attribute__((always_inline)) {
    F32x16 divisor = splat(1.0f);  // past the end of the row 0 / 1
    if (count == 16) {
      divisor = load_f32(row.smooth + i);
    } else {
      alignas(64) float tail[16];
      store_f32(tail, divisor);
      copy_bytes(tail, row.smooth + i, count * 4);
      divisor = load_f32(tail);
    }
    return x(i, count) / divisor;
  });
}

template <Format format>
float quantize_row(const ActivationRow& row, void* codes) {
  return with_dtype(row.dtype, [&](auto tag) { return quantize_row<format, decltype(tag)::value>(row, codes); });
}

template <Format format>
void quantize_per_token(const QuantizePerToken& op, const Executor& executor) {
  parallel_for(executor, op.m, [&](int64_t m) {
    const void* x = static_cast<const char*>(op.x) + m * op.x_stride * dtype_bytes(op.x_dtype);
    op.scale[m] = quantize_row<format>({x, op.smooth, op.k, op.x_dtype}, static_cast<uint8_t*>(op.codes) + m * op.k);
  });
}

// ---- fused: v lies in a row of workspace between the passes
inline float* value_row(int64_t k) {
  return static_cast<float*>(scratch(Slot::tile, round_up(k, 16) * static_cast<int64_t>(sizeof(float))));
}

// v = x + residual (stored as hidden where there is one); gives 1 / rms(v).
template <DType dtype, class Op>
inline F32x16 add_residual(const Op& op, int64_t m, float* v) {
  const void* x = at<dtype>(op.x, m * op.x_stride);
  const void* residual = op.residual ? at<dtype>(op.residual, m * op.residual_stride) : nullptr;
  void* hidden = at<dtype>(op.hidden, m * op.k);
  F32x16 squares = splat(0.0f);
  for_each_16(op.k, [&](int64_t i, int count) __attribute__((always_inline)) {
    F32x16 h = load<dtype>(at<dtype>(x, i), count);
    if (residual) {
      h = round_to<dtype>(h + load<dtype>(at<dtype>(residual, i), count));
      store<dtype>(at<dtype>(hidden, i), h, count);
    }
    squares = fma(h, h, squares);
    store_f32(v + i, h);
  });
  const float mean = sum_lanes(squares) / static_cast<float>(op.k);
  return splat(1.0f / __builtin_sqrtf(mean + static_cast<float>(op.eps)));
}

// Lanes past the end: their h and their weight are 0. (An infinite r makes them NaN: so is, then, an element's.)
template <DType dtype>
inline F32x16 normed_16(const float* v, const void* weight, F32x16 r, int64_t i, int count) {
  return round_to<dtype>(load<dtype>(at<dtype>(weight, i), count) * round_to<dtype>(load_f32(v + i) * r));
}

template <Format format, DType dtype>
void rms_norm_quantize_row(const RmsNormQuantize& op, int64_t m) {
  float* v = value_row(op.k);
  const F32x16 r = add_residual<dtype>(op, m, v);
  I32x16 amax = splat_i32(0);
  for_each_16(op.k, [&](int64_t i, int count) __attribute__((always_inline)) {
    const F32x16 normed = normed_16<dtype>(v, op.weight, r, i, count);
    amax = wider(amax, normed);
    store_f32(v + i, normed);
  });
  op.scale[m] = quantize_values<format>(amax, op.k, static_cast<uint8_t*>(op.codes) + m * op.k,
                                        [&](int64_t i, int) __attribute__((always_inline)) { return load_f32(v + i); });
}

template <DType dtype>
void rms_norm_row(const RmsNorm& op, int64_t m) {
  float* v = value_row(op.k);
  const F32x16 r = add_residual<dtype>(op, m, v);
  void* normed = at<dtype>(op.normed, m * op.k);
  for_each_16(op.k, [&](int64_t i, int count) __attribute__((always_inline)) {
    store<dtype>(at<dtype>(normed, i), normed_16<dtype>(v, op.weight, r, i, count), count);
  });
}

inline F32x16 exp_f32(F32x16 x) {
  x = max(splat(-87.0f), x);
  x = min(splat(88.0f), x);  // NaN passes both
  const F32x16 n = round_half_even(x * splat(1.44269504088896341f));
  F32x16 r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  F32x16 p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + splat(1.0f);
  return p * as_float(shift_left<23>(to_int(n) + splat_i32(127)));
}
inline F32x16 silu_f32(F32x16 g) {
  const F32x16 minus_g = as_float(bits(g) ^ splat_i32(INT32_MIN));
  return g / (splat(1.0f) + exp_f32(minus_g));
}

template <Format format, DType dtype>
void silu_mul_quantize_row(const SiluMulQuantize& op, int64_t m) {
  float* v = value_row(op.k);
  const void* gate = at<dtype>(op.gate_up, m * op.x_stride);
  const void* up = at<dtype>(op.gate_up, m * op.x_stride + op.k);
  I32x16 amax = splat_i32(0);
  for_each_16(op.k, [&](int64_t i, int count) __attribute__((always_inline)) {
    const F32x16 activated = round_to<dtype>(silu_f32(load<dtype>(at<dtype>(gate, i), count)));
    const F32x16 value = round_to<dtype>(activated * load<dtype>(at<dtype>(up, i), count));
    amax = wider(amax, value);
    store_f32(v + i, value);
  });
  op.scale[m] = quantize_values<format>(amax, op.k, static_cast<uint8_t*>(op.codes) + m * op.k,
                                        [&](int64_t i, int) __attribute__((always_inline)) { return load_f32(v + i); });
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

}  // namespace
}  // namespace pennyweight::cpu

// The exported functions of one instruction set.
#define PW_QUANTIZE_ENTRIES                                                                                           \
  float quantize_row_int8(const ActivationRow& row, int8_t* codes) { return quantize_row<Format::int8>(row, codes); } \
  float quantize_row_fp8(const ActivationRow& row, uint8_t* codes) { return quantize_row<Format::fp8>(row, codes); }  \
  void quantize_per_token_int8(const QuantizePerTokenInt8& op, const Executor& e) {                                   \
    quantize_per_token<Format::int8>(op, e);                                                                          \
  }                                                                                                                   \
  void quantize_per_token_fp8(const QuantizePerTokenFp8& op, const Executor& e) {                                     \
    quantize_per_token<Format::fp8>(op, e);                                                                           \
  }                                                                                                                   \
  void rms_norm(const RmsNorm& op, const Executor& e) { rms_norm_rows(op, e); }                                       \
  void rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const Executor& e) {                                     \
    rms_norm_quantize<Format::int8>(op, e);                                                                           \
  }                                                                                                                   \
  void rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const Executor& e) {                                       \
    rms_norm_quantize<Format::fp8>(op, e);                                                                            \
  }                                                                                                                   \
  void silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const Executor& e) {                                     \
    silu_mul_quantize<Format::int8>(op, e);                                                                           \
  }                                                                                                                   \
  void silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const Executor& e) { silu_mul_quantize<Format::fp8>(op, e); }
