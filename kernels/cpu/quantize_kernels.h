// SPDX-License-Identifier: Apache-2.0
// quantize_kernels.h: per-token quantization and what is fused with it, 64 values at a time; included by
// quantize_avx2.cpp, quantize_avx512vnni.cpp and quantize_avx512bf16.cpp, which give it its instruction set.
//
//   v = x / smooth                                     quantize_per_token
//   v = round(w * round((x + r) * rsqrt(mean + eps)))  rms_norm_quantize
//   v = round(round(silu(gate)) * up)                  silu_mul_quantize
//   codes, scale = quantize(v)                         quantize_codes.h
// rms_norm and silu_mul give v itself.
//
// Shapes    x (M,K) any stride; codes (M,K); scale (M,); smooth, weight (K,)
// Needs     any M, K (the last K mod 64 elements go through padded buffers)
// Walk      rows are tasks, several to one where there are many. A fused op writes v, rounded to x's type as it is, to
// a
//           row of workspace (L1 or L2), and quantizes that as any other row. A plain op whose x comes from memory
//           makes the codes of one row while it finds the next one's largest magnitude, a few lines of each in turn. So
//           memory is read once and written once, past the caches where all codes together exceed half of L3.
// Numerics  bit for bit the plain loops: 64 lanes of fused multiply-adds for the sum of squares; numerics.h's exp
//           operation by operation, or, of bf16, what gives the same bf16 (silu_bf16.h). bf16 is rounded without regard
//           to NaN, whose upper half survives that unless its lower half is nearly full, and what comes from 16-bit
//           values has it empty; where the result must be bf16's one NaN, rows that hold one are done again.
//           AVX512-BF16 rounds two registers to one in an instruction that also makes 0 of subnormals: used for what
//           only codes are made of, where no scale or factor is so far off that they would show.
// Limit     memory for plain INT8 and FP8; arithmetic behind RMSNorm and SiLU
// Tried     Zen 4, cycles per sixteen bf16 values in L1: codes of INT8 2.8, of FP8 1.9 (6.9 computed instead of looked
//           up), h and squares 5.2, v of RMSNorm 4.5 (7.7 rounded by integers), of SiLU 14.4 (22 by integers; 25 with
//           numerics.h's exp and a division). A whole op grows by 4.0, 3.2, 15 and 18 with K, since its rows lie in L2.
//           SiLU on two registers side by side or on one instead of four: 15.4, 16.1.
//           (8192, 8192), two threads, ms: plain ops 4.7 to 5.6, where reading alone takes 4.1 and a copy of as many
//           bytes 4.0; RMSNorm 16, SiLU 16. Plain ops row by row, the next one fetched meanwhile: 6.1 and 6.4; in turns
//           of 256 elements instead of 128: 5.3, of 512: 5.0 to 5.6; without fetching 8 KB ahead: 5.4; 4 KB ahead: 5.5,
//           2 KB: 6.9; into L1, or past L2: 6.5 to 9. The fused ops in such turns: RMSNorm 18; fetching gains them
//           nothing. Reads overlap with what works in registers alone, but little with what stores to L1 and reads from
//           L2 at the same time, and still less where two streams jump from row to row: SiLU that reads gate and up
//           side by side takes 17.4, reading one after the other 15.7. Huge pages under x gain a tenth. Ice Lake: codes
//           written past the caches in whole lines gain 20 % over quarters of a line.
// Reference kernels/reference/quantize.cpp
#pragma once
#include <algorithm>

#include "pennyweight/device.h"
#include "pennyweight/quantize.h"
#include "quantize_codes.h"
#include "scratch.h"
#include "silu_bf16.h"

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

// Calls rows(first, last) for all m rows, several at a time where there are many.
template <class F>
inline void for_each_rows(const Executor& executor, int64_t m, F&& rows) {
  const int64_t threads = std::max(executor.threads, 1);
  parallel_chunks(executor, m, std::clamp<int64_t>(m / (4 * threads), 1, 64), [&](int64_t first, int64_t last) {
    rows(first, last);
    _mm_sfence();  // nothing else orders streamed stores
  });
}

// ---- plain
// The codes of one row are made while the next one's largest magnitude is found, part by part.
template <Format format, DType dtype, bool smoothed>
void quantize_rows_in_turns(const QuantizePerToken& op, int64_t first, int64_t last) {
  constexpr int64_t part = 128, ahead = 8192;  // elements; bytes between what is read and what is fetched
  const int64_t stride = op.x_stride * dtype_bytes(dtype), row_bytes = op.k * dtype_bytes(dtype);
  RowCodes<format, dtype, smoothed> codes;  // of row m - 1
  for (int64_t m = first; m <= last; ++m) {
    const char* x = static_cast<const char*>(op.x) + m * stride;
    const ActivationRow row{x, op.smooth, op.k, dtype}, before{x - stride, op.smooth, op.k, dtype};
    const Codes to = codes_of(op, m - 1);
    RowMost<dtype, smoothed> most;
    for (int64_t begin = 0; begin < op.k; begin += part) {
      const int64_t end = std::min(begin + part, op.k), later = begin * dtype_bytes(dtype) + ahead;
      if (m < last) most.add(row, begin, end);
      if (m > first)
        codes.write(before, to, begin, end, later < row_bytes ? x + later : x + stride + later - row_bytes);
    }
    if (m > first) op.scale[m - 1] = codes.scale();
    if (m < last) codes = {most, op.k};
  }
}

template <Format format, DType dtype, bool smoothed>
void quantize_rows(const QuantizePerToken& op, const Executor& executor) {
  const bool from_memory = op.m * op.k * dtype_bytes(dtype) > device().l3_bytes / 2;
  for_each_rows(executor, op.m, [&](int64_t first, int64_t last) {
    if (from_memory && last - first > 1) return quantize_rows_in_turns<format, dtype, smoothed>(op, first, last);
    for (int64_t m = first; m < last; ++m)
      op.scale[m] = quantize_row<format, dtype, smoothed>({at<dtype>(op.x, m * op.x_stride), op.smooth, op.k, dtype},
                                                          codes_of(op, m));
  });
}
template <Format format>
void quantize_per_token(const QuantizePerToken& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    if (op.smooth)
      quantize_rows<format, dtype, true>(op, executor);
    else
      quantize_rows<format, dtype, false>(op, executor);
  });
}

// ---- fused: values of x's type, 64 at a time
// How far a float is from being rounded as numerics.h does it. Only bf16 knows a difference.
enum class Rounding {
  canonical,  // not at all
  upper,      // a NaN may keep its upper half, which survives where its lower half is not nearly full
  flushing,   // and subnormals may become 0, where the instruction set has a rounding that does so
};

#if defined(__AVX512BF16__)
constexpr bool kFlushingBf16 = true;
#else
constexpr bool kFlushingBf16 = false;
#endif
// What is good enough for codes, where scales and factors are such that 0 instead of a subnormal makes no difference.
template <DType dtype>
constexpr Rounding kQuickest = dtype == DType::bf16 && kFlushingBf16 ? Rounding::flushing : Rounding::upper;
// Whether it is: factors that leave a subnormal below 2^-111, and a scale of at least 2^-100, at which that is less
// than half of the smallest E4M3 code.
template <DType dtype>
inline bool factors_allow_quickest(const void* factors, int64_t k) {
  if constexpr (kQuickest<dtype> != Rounding::flushing) return true;
  RowMost<dtype, false> most;
  most.add({factors, nullptr, k, dtype}, 0, k);
  return bits_f32(most.bits_of_most()) <= 0x1p15f;
}
template <DType dtype>
inline bool scale_allows_quickest(float scale) {
  return kQuickest<dtype> != Rounding::flushing || scale >= 0x1p-100f;
}

// bf16 in the upper half; the lower one is anything.
template <Rounding rounding>
inline I32x16 rounded_bits(F32x16 v) {
  const I32x16 u = bits(v);
  if constexpr (rounding == Rounding::canonical) return shift_left<16>(f32_bf16(v));
  return u + splat_i32(0x7fff) + (shift_right<16>(u) & splat_i32(1));
}

// Values of `dtype` as floats, n registers of them: 64 as load_64 leaves them, or 16.
template <DType dtype, int n>
struct Values {
  F32x16 v[n];

  static inline __attribute__((always_inline)) Values load(const void* p) {
    Values out;
    if constexpr (n == 4)
      load_64<dtype>(p, out.v);
    else
      out.v[0] = cpu::load<dtype>(p);
    return out;
  }
  // Rounds them in place.
  template <Rounding rounding>
  inline __attribute__((always_inline)) void round() {
    if constexpr (flushes(rounding)) {
#if defined(__AVX512BF16__)
      round_flushed(v);
#endif
    } else {
      each([](F32x16 a) {
        if constexpr (dtype == DType::bf16)
          return as_float(rounded_bits<rounding>(a) & splat_i32(INT32_MIN >> 15));
        else
          return round_to<dtype>(a);
      });
    }
  }
  // Stores values that are rounded already.
  inline __attribute__((always_inline)) void store(void* p) const {
    if constexpr (dtype == DType::bf16) {
      I32x16 upper[n];
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) upper[j] = bits(v[j]);
      store_upper(p, upper);
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) cpu::store<dtype>(at<dtype>(p, 16 * j), v[j]);
    }
  }
  // Rounds and stores them.
  template <Rounding rounding>
  inline __attribute__((always_inline)) void store(void* p) const {
    if constexpr (flushes(rounding)) {
#if defined(__AVX512BF16__)
      store_flushed(p, v);
#endif
    } else if constexpr (dtype == DType::bf16) {
      I32x16 upper[n];
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) upper[j] = rounded_bits<rounding>(v[j]);
      store_upper(p, upper);
    } else {
      store(p);
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
  static constexpr bool flushes(Rounding rounding) {
    return kFlushingBf16 && rounding == Rounding::flushing && dtype == DType::bf16;
  }
  static inline __attribute__((always_inline)) void store_upper(void* p, const I32x16 (&upper)[n]) {
    if constexpr (n == 4)
      store_upper_halves(p, upper);
    else
      _mm256_storeu_si256(static_cast<__m256i*>(p), low_words(shift_right<16>(upper[0])));
  }
};

// Calls f(a, b, out, i) for runs of 64 of k elements of a, b (or null) and out (or null); the last, where k ends in
// one, on copies padded with zeros.
template <DType dtype, class F>
inline __attribute__((always_inline)) void for_each_run(int64_t k, const void* a, const void* b, void* out, F&& f) {
  int64_t i = 0;
  for (; i + 64 <= k; i += 64) f(at<dtype>(a, i), b ? at<dtype>(b, i) : nullptr, out ? at<dtype>(out, i) : nullptr, i);
  if (i == k) return;
  const int64_t bytes = (k - i) * dtype_bytes(dtype);
  alignas(64) char padded_a[64 * 4] = {}, padded_b[64 * 4] = {}, result[64 * 4];
  copy_bytes(padded_a, at<dtype>(a, i), bytes);
  if (b) copy_bytes(padded_b, at<dtype>(b, i), bytes);
  f(static_cast<const void*>(padded_a), static_cast<const void*>(b ? padded_b : nullptr), static_cast<void*>(result),
    i);
  if (out) copy_bytes(at<dtype>(out, i), result, bytes);
}
// Calls f(Side<n>, j) for the registers j .. j + n of 64 values that an instruction set works on side by side.
template <int count>
struct Side {
  static constexpr int n = count;
};
template <class F>
inline __attribute__((always_inline)) void for_each_side(F&& f) {
#if defined(__AVX512F__)
  f(Side<4>{}, 0);
#else  // AVX2 has no registers for more than one
  for (int j = 0; j < 4; ++j) f(Side<1>{}, j);
#endif
}
// A row of workspace for values of a type; rows do not lie a multiple of a page apart.
template <DType dtype>
inline void* value_row(int64_t k, int64_t index, int64_t count) {
  const int64_t pitch = round_up(k, 64) * dtype_bytes(dtype) + 1088;
  return static_cast<char*>(scratch(Slot::tile, count * pitch)) + index * pitch;
}

// ---- RMSNorm
// 64 lanes, as load_64 leaves values of `dtype`.
template <DType dtype>
struct SquareSum {
  F32x16 lanes[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  float total() const {
    F32x16 v[4] = {lanes[0], lanes[1], lanes[2], lanes[3]};
    put_in_order<dtype>(v);
    return sum_lanes((v[0] + v[2]) + (v[1] + v[3]));
  }
};

template <DType dtype>
inline void stream_64(void* to, const void* from) {
  for (int64_t i = 0; i < 64 * dtype_bytes(dtype); i += 64) {
    Line line;
    __builtin_memcpy(&line, static_cast<const char*>(from) + i, 64);
    stream_line(static_cast<char*>(to) + i, line);
  }
}

// h = x + residual, rounded (without a residual x is h); h goes past the caches too, to `streamed`, where that is not
// null. Gives the sum of squares.
template <DType dtype, Rounding rounding>
inline float add_residual(const void* x, const void* residual, int64_t k, void* h, void* streamed) {
  SquareSum<dtype> sum;
  for_each_run<dtype>(
      k, x, residual, h, [&](const void* a, const void* b, void* out, int64_t i) __attribute__((always_inline)) {
        for_each_side([&](auto side, int j) __attribute__((always_inline)) {
          using Run = Values<dtype, decltype(side)::n>;
          Run v = Run::load(at<dtype>(a, 16 * j));
          if (b) {
            v.each(Run::load(at<dtype>(b, 16 * j)), [](F32x16 one, F32x16 other) { return one + other; });
            v.template round<rounding>();
            v.store(at<dtype>(out, 16 * j));
          }
#pragma GCC unroll 4
          for (int n = 0; n < decltype(side)::n; ++n) sum.lanes[j + n] = fma(v.v[n], v.v[n], sum.lanes[j + n]);
        });
        if (streamed) stream_64<dtype>(at<dtype>(streamed, i), out);
      });
  return sum.total();
}

// normed = round(weight * round(h * r)); gives its largest magnitude.
template <DType dtype, Rounding rounding>
inline RowMost<dtype, false> scale_row(const void* h, float r, const void* weight, int64_t k, void* normed) {
  RowMost<dtype, false> most;
  for_each_run<dtype>(k, h, weight, normed,
                      [&, by = splat(r)](const void* a, const void* b, void* out, int64_t)
                          __attribute__((always_inline)) {
                            for_each_side([&](auto side, int j) __attribute__((always_inline)) {
                              using Run = Values<dtype, decltype(side)::n>;
                              Run v = Run::load(at<dtype>(a, 16 * j));
                              v.each([by](F32x16 one) { return one * by; });
                              v.template round<rounding>();
                              v.each(Run::load(at<dtype>(b, 16 * j)), [](F32x16 one, F32x16 w) { return w * one; });
                              v.template store<rounding>(at<dtype>(out, 16 * j));
                            });
                            most.add(out, nullptr);
                          });
  return most;
}

// One row of an RMSNorm. `workspace`, or null: a row for h, where the op's own goes past the caches.
template <DType dtype>
class NormRow {
 public:
  template <class Op>
  NormRow(const Op& op, int64_t m, void* workspace)
      : x_(at<dtype>(op.x, m * op.x_stride)),
        residual_(op.residual ? at<dtype>(op.residual, m * op.residual_stride) : nullptr),
        weight_(op.weight),
        h_(op.residual ? at<dtype>(op.hidden, m * op.k) : nullptr),
        k_(op.k),
        eps_(static_cast<float>(op.eps)) {
    if (h_ && workspace && goes_past_caches(op.hidden, op.m, op.k, dtype_bytes(dtype))) {
      streamed_ = h_;
      h_ = workspace;
    }
    add<Rounding::upper>();
    if (!finite_) add<Rounding::canonical>();
  }
  // False where the row holds, or came to, Inf or NaN.
  bool finite() const { return finite_; }
  template <Rounding rounding>
  RowMost<dtype, false> scale(void* normed) const {
    return scale_row<dtype, rounding>(h_ ? h_ : x_, r_, weight_, k_, normed);
  }

 private:
  template <Rounding rounding>
  void add() {
    const float squares = add_residual<dtype, rounding>(x_, residual_, k_, h_, streamed_);
    r_ = 1.0f / __builtin_sqrtf(squares / static_cast<float>(k_) + eps_);
    finite_ = squares - squares == 0.0f && r_ - r_ == 0.0f;
  }

  const void *x_, *residual_, *weight_;
  void *h_, *streamed_ = nullptr;
  int64_t k_;
  float eps_, r_;
  bool finite_;
};

inline void rms_norm_rows(const RmsNorm& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    parallel_for(executor, op.m, [&](int64_t m) {
      void* normed = at<dtype>(op.normed, m * op.k);
      const NormRow<dtype> row(op, m, nullptr);
      const RowMost<dtype, false> most = row.template scale<Rounding::upper>(normed);
      if (!row.finite() || !most.is_finite()) row.template scale<Rounding::canonical>(normed);
    });
  });
}

// quick: the weights allow kQuickest.
template <Format format, DType dtype>
void rms_norm_quantize_row(const RmsNormQuantize& op, int64_t m, bool quick) {
  void* v = value_row<dtype>(op.k, 0, 2);
  const NormRow<dtype> row(op, m, value_row<dtype>(op.k, 1, 2));
  RowCodes<format, dtype, false> codes;
  quick = quick && row.finite();
  if (quick) codes = {row.template scale<kQuickest<dtype>>(v), op.k};
  if (!quick || !scale_allows_quickest<dtype>(codes.scale()))
    codes = {row.template scale<Rounding::canonical>(v), op.k};
  codes.write({v, nullptr, op.k, dtype}, codes_of(op, m), 0, op.k, nullptr);
  op.scale[m] = codes.scale();
}

template <Format format>
void rms_norm_quantize(const RmsNormQuantize& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    const bool quick = factors_allow_quickest<dtype>(op.weight, op.k);
    for_each_rows(executor, op.m, [&](int64_t first, int64_t last) {
      for (int64_t m = first; m < last; ++m) rms_norm_quantize_row<format, dtype>(op, m, quick);
    });
  });
}

// ---- SiLU
template <DType dtype, Rounding rounding, int n>
inline __attribute__((always_inline)) void silu(F32x16 (&v)[n]) {
#if defined(__AVX512F__)
  if constexpr (dtype == DType::bf16 && rounding != Rounding::canonical) return silu_bf16(v);
#endif
  F32x16 e[n];
#pragma GCC unroll 4
  for (int j = 0; j < n; ++j) e[j] = as_float(bits(v[j]) ^ splat_i32(INT32_MIN));
  exp_f32(e);
#pragma GCC unroll 4
  for (int j = 0; j < n; ++j) v[j] = v[j] / (splat(1.0f) + e[j]);
}

// v = round(round(silu(gate)) * up), the gates of a row first: memory is then read in one stream.
template <DType dtype, Rounding rounding>
inline RowMost<dtype, false> silu_mul_row(const void* gate, const void* up, int64_t k, void* v) {
  for_each_run<dtype>(k, gate, nullptr, v,
                      [&](const void* a, const void*, void* out, int64_t) __attribute__((always_inline)) {
                        for_each_side([&](auto side, int j) __attribute__((always_inline)) {
                          using Run = Values<dtype, decltype(side)::n>;
                          Run value = Run::load(at<dtype>(a, 16 * j));
                          silu<dtype, rounding>(value.v);
                          value.template store<rounding>(at<dtype>(out, 16 * j));
                        });
                      });
  RowMost<dtype, false> most;
  for_each_run<dtype>(k, v, up, v,
                      [&](const void* a, const void* b, void* out, int64_t) __attribute__((always_inline)) {
                        for_each_side([&](auto side, int j) __attribute__((always_inline)) {
                          using Run = Values<dtype, decltype(side)::n>;
                          Run value = Run::load(at<dtype>(a, 16 * j));
                          value.each(Run::load(at<dtype>(b, 16 * j)), [](F32x16 one, F32x16 by) { return one * by; });
                          value.template store<rounding>(at<dtype>(out, 16 * j));
                        });
                        most.add(out, nullptr);
                      });
  return most;
}

inline void silu_mul_rows(const SiluMul& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    parallel_for(executor, op.m, [&](int64_t m) {
      const void* gate = at<dtype>(op.gate_up, m * op.x_stride);
      const void* up = at<dtype>(gate, op.k);
      void* y = at<dtype>(op.y, m * op.k);
      if (!silu_mul_row<dtype, Rounding::upper>(gate, up, op.k, y).is_finite())
        silu_mul_row<dtype, Rounding::canonical>(gate, up, op.k, y);
    });
  });
}

template <Format format, DType dtype>
void silu_mul_quantize_row(const SiluMulQuantize& op, int64_t m) {
  const void* gate = at<dtype>(op.gate_up, m * op.x_stride);
  const void* up = at<dtype>(gate, op.k);
  void* v = value_row<dtype>(op.k, 0, 1);
  RowCodes<format, dtype, false> codes(silu_mul_row<dtype, kQuickest<dtype>>(gate, up, op.k, v), op.k);
  if (!scale_allows_quickest<dtype>(codes.scale()) || !factors_allow_quickest<dtype>(up, op.k))
    codes = {silu_mul_row<dtype, Rounding::upper>(gate, up, op.k, v), op.k};
  codes.write({v, nullptr, op.k, dtype}, codes_of(op, m), 0, op.k, nullptr);
  op.scale[m] = codes.scale();
}

template <Format format>
void silu_mul_quantize(const SiluMulQuantize& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    for_each_rows(executor, op.m, [&](int64_t first, int64_t last) {
      for (int64_t m = first; m < last; ++m) silu_mul_quantize_row<format, dtype>(op, m);
    });
  });
}

}  // namespace
}  // namespace pennyweight::cpu

// The exported functions of one instruction set.
#define PW_QUANTIZE_ENTRIES                                                         \
  float quantize_row_int8(const ActivationRow& row, int8_t* codes) {                \
    return quantize_row<Format::int8>(row, {codes, false});                         \
  }                                                                                 \
  float quantize_row_fp8(const ActivationRow& row, uint8_t* codes) {                \
    return quantize_row<Format::fp8>(row, {codes, false});                          \
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
