// SPDX-License-Identifier: Apache-2.0
// quantize_codes.h: one row's scale and codes (quantize_row.h), 64 values at a time: first its largest magnitude, then
// its codes; each on any part of the row. Included by quantize_kernels.h; quotient.h and e4m3_table.h have the
// arithmetic.
#pragma once
#include <array>
#include <type_traits>

#include "e4m3_table.h"
#include "f32x64.h"
#include "quantize_row.h"
#include "quotient.h"

namespace pennyweight::cpu {
namespace {

enum class Format { int8, fp8 };
template <Format format>
constexpr float kLargest = format == Format::int8 ? 127.0f : 448.0f;

// Where a row's codes go.
struct Codes {
  void* row;
  bool stream;  // past the caches, in whole lines: row and k are multiples of 64
};

// x / smooth for 64 values, in order.
template <DType dtype>
inline void load_smoothed(const void* x, const float* smooth, F32x16 (&v)[4]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) v[j] = load<dtype>(at<dtype>(x, 16 * j)) / load_f32(smooth + 16 * j);
}

// Calls f(x, smooth, i, count) for runs of 64 of the elements begin .. end; the last, where the row ends in one, padded
// with zeros and ones. begin is a multiple of 64, and so is end but for the row's.
template <DType dtype, class F>
inline __attribute__((always_inline)) void for_each_64(const ActivationRow& row, int64_t begin, int64_t end, F&& f) {
  int64_t i = begin;
  for (; i + 64 <= end; i += 64) f(at<dtype>(row.x, i), row.smooth ? row.smooth + i : nullptr, i, int64_t{64});
  if (i >= end) return;
  const int64_t left = end - i;
  alignas(64) char x[64 * 4] = {};
  alignas(64) float smooth[64];
  copy_bytes(x, at<dtype>(row.x, i), left * dtype_bytes(dtype));
  for (float& one : smooth) one = 1.0f;
  if (row.smooth) copy_bytes(smooth, row.smooth + i, left * 4);
  f(static_cast<const void*>(x), static_cast<const float*>(row.smooth ? smooth : nullptr), i, left);
}

// ---- pass 1: the largest magnitude; of 16-bit floats on their bits, where NaN and Inf win
template <DType dtype, bool smoothed>
class RowMost {
 public:
  RowMost() {
    if constexpr (words)
      most_ = no_words();
    else
      most_.fill(splat_i32(0));
  }
  // 64 values.
  inline __attribute__((always_inline)) void add(const void* x, const float* smooth) {
    if constexpr (words) {
      most_ = widest_words(widest_words(most_, x), at<dtype>(x, 32));
    } else {
      F32x16 v[4];
      if constexpr (smoothed)
        load_smoothed<dtype>(x, smooth, v);
      else
        load_64<dtype>(x, v);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) most_[j] = max(most_[j], bits(magnitude(v[j])));
    }
  }
  void add(const ActivationRow& row, int64_t begin, int64_t end) {
    RowMost local = *this;  // in registers
    for_each_64<dtype>(row, begin, end,
                       [&](const void* x, const float* smooth, int64_t, int64_t)
                           __attribute__((always_inline)) { local.add(x, smooth); });
    *this = local;
  }
  bool is_finite() const { return bits_of_most() < 0x7f800000u; }
  // Of the value as float32.
  uint32_t bits_of_most() const {
    if constexpr (words) {
      alignas(64) uint16_t lanes[sizeof most_ / 2];
      __builtin_memcpy(lanes, &most_, sizeof most_);
      uint16_t widest = 0;
      for (const uint16_t lane : lanes) widest = lane > widest ? lane : widest;
      return f32_bits(dtype == DType::bf16 ? bf16_f32(widest) : f16_f32(widest));
    } else {
      return static_cast<uint32_t>(max_lane(max(max(most_[0], most_[1]), max(most_[2], most_[3]))));
    }
  }

 private:
  static constexpr bool words = dtype != DType::f32 && !smoothed;
  std::conditional_t<words, Words, std::array<I32x16, 4>> most_;
};

// ---- pass 2: the codes
template <Format format, DType dtype, bool smoothed, Quotient how>
inline __attribute__((always_inline)) Line codes_of_64(const void* x, const float* smooth, const Scale& scale) {
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

// A row's scale, and what its codes are made with.
template <Format format, DType dtype, bool smoothed>
class RowCodes {
 public:
  RowCodes() = default;
  RowCodes(const RowMost<dtype, smoothed>& most, [[maybe_unused]] int64_t k)
      : scale_(activation_scale(most.bits_of_most(), kLargest<format>)) {
    if (!(scale_ > 0.0f)) return;
    by_ = Scale(scale_);
    how_ = exact && has_reciprocal(scale_) ? How::reciprocal : How::division;
#if defined(__AVX512VBMI__)
    if constexpr (tabled) {
      constexpr int64_t worth = 512;
      if (how_ == How::reciprocal && k >= worth) {
        table_ = E4m3Table(scale_, by_);
        how_ = How::table;
      }
    }
#endif
  }
  float scale() const { return scale_; }
  // Of the elements begin .. end, as for_each_64 has them. `next` (or null) is fetched meanwhile, as much as is read.
  void write(const ActivationRow& row, const Codes& codes, int64_t begin, int64_t end, const char* next) const {
    switch (how_) {
      case How::zeros:
        __builtin_memset(static_cast<char*>(codes.row) + begin, 0, static_cast<size_t>(end - begin));
        break;
      case How::division:
        write_by<Quotient::division>(row, codes, begin, end, next);
        break;
      case How::reciprocal:
        if constexpr (exact) write_by<Quotient::reciprocal>(row, codes, begin, end, next);
        break;
      case How::table:
#if defined(__AVX512VBMI__)
        if constexpr (tabled)
          write_lines(row, codes, begin, end, next,
                      [table = table_, by = by_](const void* x, const float*)
                          __attribute__((always_inline)) { return table.codes(x, by); });
#endif
        break;
    }
  }

 private:
  static constexpr bool exact = dtype != DType::f32 && !smoothed;  // by a reciprocal
  enum class How { zeros, division, reciprocal, table };

  template <Quotient how>
  void write_by(const ActivationRow& row, const Codes& codes, int64_t begin, int64_t end, const char* next) const {
    write_lines(row, codes, begin, end, next,
                [by = by_](const void* x, const float* smooth) __attribute__((always_inline)) {
                  return codes_of_64<format, dtype, smoothed, how>(x, smooth, by);
                });
  }
  template <class F>
  static inline __attribute__((always_inline)) void write_lines(const ActivationRow& row, const Codes& codes,
                                                                int64_t begin, int64_t end, const char* next,
                                                                F&& line_of) {
    for_each_64<dtype>(row, begin, end,
                       [&](const void* x, const float* smooth, int64_t i, int64_t count)
                           __attribute__((always_inline)) {
                             if (next) {
                               const char* ahead = next + (i - begin) * dtype_bytes(dtype);
                               for (int64_t n = 0; n < 64 * dtype_bytes(dtype); n += 64)
                                 _mm_prefetch(ahead + n, _MM_HINT_T1);
                             }
                             const Line line = line_of(x, smooth);
                             uint8_t* to = static_cast<uint8_t*>(codes.row) + i;
                             if (codes.stream) return stream_line(to, line);
                             if (count == 64) return store_line(to, line);
                             alignas(64) uint8_t bytes[64];
                             store_line(bytes, line);
                             copy_bytes(to, bytes, count);
                           });
  }

  float scale_ = 0.0f;
  How how_ = How::zeros;
  Scale by_{};
#if defined(__AVX512VBMI__)
  static constexpr bool tabled = format == Format::fp8 && dtype == DType::bf16 && !smoothed;
  std::conditional_t<tabled, E4m3Table, char> table_{};
#endif
};

template <Format format, DType dtype, bool smoothed>
float quantize_row(const ActivationRow& row, const Codes& codes) {
  RowMost<dtype, smoothed> most;
  most.add(row, 0, row.k);
  const RowCodes<format, dtype, smoothed> made(most, row.k);
  made.write(row, codes, 0, row.k, nullptr);
  return made.scale();
}

template <Format format>
float quantize_row(const ActivationRow& row, const Codes& codes) {
  return with_dtype(row.dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    return row.smooth ? quantize_row<format, dtype, true>(row, codes) : quantize_row<format, dtype, false>(row, codes);
  });
}

}  // namespace
}  // namespace pennyweight::cpu
