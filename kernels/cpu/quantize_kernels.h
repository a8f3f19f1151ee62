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
// Walk      a row is one task: pass 1 finds the amax (and the fused value), pass 2 divides and rounds, fetching the
// next
//           row meanwhile. The row of workspace (4K bytes) stays in L1 or L2, so memory is read once and written once,
//           past the caches where all codes together exceed half of L3.
// Numerics  bit for bit the plain loops: true division, sixteen lanes of fused multiply-adds for the sum of squares,
//           numerics.h's exp operation by operation. The amax is taken on the bits of |v|, where NaN and Inf win.
// Limit     the division: plain INT8 on Zen 4 takes 9 cycles per sixteen values, about what one vdivps takes
// Tried     Zen 4, one thread, (256, 4096) bf16, thread CPU time in us, AVX-512 / AVX2 / plain loops: INT8 160 / 186 /
//           2070, FP8 264 / 352 / 2280, RMSNorm with residual 672 / 722 / 8875, SiLU 863 / 1132 / 16339.
//           Ice Lake, two threads, (8192, 8192) bf16, share of the copy bandwidth before and after: INT8 40 and 59 to
//           74 %, FP8 35 and 47 %, by three changes that do little alone: fetching the next row while this one's codes
//           are made, codes written past the caches in whole lines (in quarters of a line they cost 20 % instead), and
//           the amax of 16-bit floats taken on their bits. RMSNorm 43 and 44 %, SiLU 27 and 26 %: arithmetic bounds
//           them. A reciprocal with two corrections for the division (the same bits): 2 to 10 % on top in a loop of
//           its own, not taken.
// Reference kernels/reference/quantize.cpp
#pragma once
#include "f32x16.h"
#include "pennyweight/device.h"
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

// ---- where a row's codes go
struct Codes {
  void* row;
  bool stream;  // past the caches, in whole lines: row and k are multiples of 64
};

// Codes of row m of a whole op; those of all its rows are streamed where they would not stay in a cache anyway.
template <class Op>
inline Codes codes_of(const Op& op, int64_t m) {
  const bool aligned = reinterpret_cast<uintptr_t>(op.codes) % 64 == 0 && op.k % 64 == 0;
  return {static_cast<uint8_t*>(op.codes) + m * op.k, aligned && op.m * op.k > device().l3_bytes / 2};
}

template <Format format>
inline __m128i codes_16(F32x16 v, F32x16 scale) {
  return format == Format::int8 ? int8_codes(v, scale) : e4m3_codes(v, scale);
}
inline void store_codes(void* row, int64_t i, int count, __m128i c) {
  __m128i* p = reinterpret_cast<__m128i*>(static_cast<uint8_t*>(row) + i);
  if (count == 16) return _mm_storeu_si128(p, c);
  copy_bytes(p, &c, count);
}

inline I32x16 wider(I32x16 amax, F32x16 v) { return max(amax, bits(v) & splat_i32(0x7fffffff)); }

// Scale (returned) and codes of a row whose amax is known; value(i, count) gives 16 of its elements, fetch(i) asks for
// what the next row will need in their place.
template <Format format, class Value, class Fetch>
inline float quantize_values(uint32_t amax_bits, int64_t k, const Codes& codes, Value&& value, Fetch&& fetch) {
  const float scale = activation_scale(amax_bits, format == Format::int8 ? 127.0f : 448.0f);
  if (!(scale > 0.0f)) {
    __builtin_memset(codes.row, 0, static_cast<size_t>(k));
    return scale;
  }
  const F32x16 divisor = splat(scale);
  if (codes.stream) {
    for (int64_t i = 0; i < k; i += 64) {
      __m128i line[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        fetch(i + 16 * j);
        line[j] = codes_16<format>(value(i + 16 * j, 16), divisor);
      }
      stream_line(static_cast<uint8_t*>(codes.row) + i, line);
    }
    _mm_sfence();  // nothing else orders streamed stores
    return scale;
  }
  for_each_16(k, [&](int64_t i, int count) __attribute__((always_inline)) {
    fetch(i);
    store_codes(codes.row, i, count, codes_16<format>(value(i, count), divisor));
  });
  return scale;
}
inline uint32_t widest(I32x16 amax) { return static_cast<uint32_t>(max_lane(amax)); }

template <DType dtype>
inline const void* at(const void* p, int64_t i) {
  return static_cast<const char*>(p) + i * dtype_bytes(dtype);
}
template <DType dtype>
inline void* at(void* p, int64_t i) {
  return static_cast<char*>(p) + i * dtype_bytes(dtype);
}

// ---- plain
// Fetches what lies at the same place of the next row, `bytes` on; 0: nothing.
template <DType dtype>
inline void fetch_next(const void* row, int64_t i, int64_t bytes) {
  if (bytes) _mm_prefetch(static_cast<const char*>(row) + i * dtype_bytes(dtype) + bytes, _MM_HINT_T1);
}
template <class Op>
inline int64_t next_row(const Op& op, int64_t m, int64_t stride) {
  return m + 1 < op.m ? stride * dtype_bytes(op.x_dtype) : 0;
}

// Bits of max|x|, as float32. Sixteen-bit floats order like their bits, so they need no conversion on the way.
template <DType dtype>
inline uint32_t row_amax(const void* x, int64_t k) {
  if constexpr (dtype == DType::f32) {
    I32x16 amax = splat_i32(0);
    for_each_16(k, [&](int64_t i, int count)
                       __attribute__((always_inline)) { amax = wider(amax, load<dtype>(at<dtype>(x, i), count)); });
    return widest(amax);
  } else {
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);
    __m256i amax = _mm256_setzero_si256();
    for_each_16(k, [&](int64_t i, int count) __attribute__((always_inline)) {
      __m256i words = _mm256_setzero_si256();
      if (count == 16)
        words = _mm256_loadu_si256(static_cast<const __m256i*>(at<dtype>(x, i)));
      else
        copy_bytes(&words, at<dtype>(x, i), count * 2);
      amax = _mm256_max_epu16(amax, _mm256_and_si256(words, magnitude));
    });
    alignas(32) uint16_t lanes[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), amax);
    return widest(bits(load<dtype>(lanes, 16)));
  }
}

template <Format format, DType dtype>
float quantize_row(const ActivationRow& row, const Codes& codes, int64_t next) {
  auto x = [&](int64_t i, int count) __attribute__((always_inline)) { return load<dtype>(at<dtype>(row.x, i), count); };
  auto fetch = [&](int64_t i) __attribute__((always_inline)) { fetch_next<dtype>(row.x, i, next); };
  if (!row.smooth) return quantize_values<format>(row_amax<dtype>(row.x, row.k), row.k, codes, x, fetch);
  auto smoothed = [&](int64_t i, int count) __attribute__((always_inline)) {
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
  };
  I32x16 amax = splat_i32(0);
  for_each_16(row.k,
              [&](int64_t i, int count) __attribute__((always_inline)) { amax = wider(amax, smoothed(i, count)); });
  return quantize_values<format>(widest(amax), row.k, codes, smoothed, fetch);
}

// next: bytes to the row that will be quantized after this one; 0: none.
template <Format format>
float quantize_row(const ActivationRow& row, const Codes& codes, int64_t next) {
  return with_dtype(row.dtype, [&](auto tag) { return quantize_row<format, decltype(tag)::value>(row, codes, next); });
}

template <Format format>
void quantize_per_token(const QuantizePerToken& op, const Executor& executor) {
  parallel_for(executor, op.m, [&](int64_t m) {
    const void* x = static_cast<const char*>(op.x) + m * op.x_stride * dtype_bytes(op.x_dtype);
    op.scale[m] = quantize_row<format>({x, op.smooth, op.k, op.x_dtype}, codes_of(op, m), next_row(op, m, op.x_stride));
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
  const void* x = at<dtype>(op.x, m * op.x_stride);
  const void* residual = op.residual ? at<dtype>(op.residual, m * op.residual_stride) : nullptr;
  const int64_t next = next_row(op, m, op.x_stride), next_residual = next_row(op, m, op.residual_stride);
  op.scale[m] = quantize_values<format>(
      widest(amax), op.k, codes_of(op, m),
      [&](int64_t i, int) __attribute__((always_inline)) { return load_f32(v + i); },
      [&](int64_t i) __attribute__((always_inline)) {
        fetch_next<dtype>(x, i, next);
        if (residual) fetch_next<dtype>(residual, i, next_residual);
      });
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
  const int64_t next = next_row(op, m, op.x_stride);
  op.scale[m] = quantize_values<format>(
      widest(amax), op.k, codes_of(op, m),
      [&](int64_t i, int) __attribute__((always_inline)) { return load_f32(v + i); },
      [&](int64_t i) __attribute__((always_inline)) {
        fetch_next<dtype>(gate, i, next);
        fetch_next<dtype>(up, i, next);
      });
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
#define PW_QUANTIZE_ENTRIES                                                         \
  float quantize_row_int8(const ActivationRow& row, int8_t* codes) {                \
    return quantize_row<Format::int8>(row, {codes, false}, 0);                      \
  }                                                                                 \
  float quantize_row_fp8(const ActivationRow& row, uint8_t* codes) {                \
    return quantize_row<Format::fp8>(row, {codes, false}, 0);                       \
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
  void silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const Executor& e) { silu_mul_quantize<Format::fp8>(op, e); }
