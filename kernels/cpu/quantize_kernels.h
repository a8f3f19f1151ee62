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
// Walk      a row goes through two or three stages: what must be known of all of it (the largest magnitude, the sum of
//           squares) lies between them. Several rows are a task, and stages of rows that follow each other take turns,
//           some hundred elements at a time: one waits for memory while the others compute.
//
//               plain   | amax          | codes |                 row t      ▓▓▓▓ stage 0
//               norm    | h, squares    | v, amax | codes |       row t - 1      ▓▓▓▓ stage 1
//               SiLU    | v, amax       | codes |                 row t - 2          ▓▓▓▓ stage 2
//
//           Between stages rows lie in workspace (L1 or L2), rounded to x's type as they are; memory is read once and
//           written once, past the caches where all codes together exceed half of L3.
// Numerics  bit for bit the plain loops: 64 lanes of fused multiply-adds for the sum of squares; numerics.h's exp
//           operation by operation, or, of bf16, what gives the same bf16 (silu_bf16.h). bf16 is rounded without regard
//           to NaN, whose upper half survives that unless its lower half is nearly full, and what comes from 16-bit
//           values has it empty; where the result must be bf16's one NaN, rows that hold one are done again.
//           AVX512-BF16 rounds two registers to one in an instruction that also makes 0 of subnormals: used for what
//           only codes are made of, where no scale or factor is so far off that they would show.
// Limit     memory for plain INT8 and FP8; arithmetic behind RMSNorm and SiLU
// Tried     Zen 4, cycles per sixteen bf16 values in L1: codes of INT8 2.8, of FP8 1.9 (6.9 computed instead of looked
//           up), h and squares 5.2, v of RMSNorm 4.5 (7.7 rounded by integers), of SiLU 14.4 (22 by integers; 25 with
//           numerics.h's exp and a division). A whole op grows by 4.3, 3.8, 15 and 21 with K, since its rows lie in L2.
//           SiLU on two registers side by side or on one instead of four: 15.4, 16.1. (8192, 8192), two threads, ms:
//           plain ops 4.7 in stages (6.1 and 6.4 row by row) where a copy of as many bytes takes 4.0 and reading
//           alone 4.1; RMSNorm 16 (22), SiLU 17 (20). Parts of 256 elements instead of 128: 5.3, 512: 5.0 to 5.6; for
//           the fused ops 512 are as good. Fetching ahead, without which plain ops take 5.4, gains nothing for the
//           fused ones; nor does fetching into L1. Huge pages under x: a tenth. Ice Lake: codes written past the caches
//           in whole lines gain 20 % over quarters of a line.
// Reference kernels/reference/quantize.cpp
#pragma once
#include "pennyweight/device.h"
#include "pennyweight/quantize.h"
#include "quantize_codes.h"
#include "scratch.h"
#include "silu_bf16.h"

namespace pennyweight::cpu {
namespace {

// ---- rows in stages
constexpr int64_t kAhead = 8192;  // bytes between what is read and what is fetched

template <int stage>
struct Stage {};

// Stage s works on row t - s while stage 0 works on row t, part by part: what one waits for memory, the others compute.
// A Row has start(task, row), part(Stage, begin, end), finish(Stage), and kPart: how many elements a part has, a
// multiple of 64.
template <int stages, class Row, class Task>
inline void run_stages(const Task& task, int64_t first, int64_t last, int64_t k) {
  static_assert(stages == 2 || stages == 3);
  Row ring[stages];
  for (int64_t t = first; t < last + stages - 1; ++t) {
    const auto each_stage = [&](auto&& f) __attribute__((always_inline)) {
      if (t < last) f(ring[t % stages], Stage<0>{});
      if (t - 1 >= first && t - 1 < last) f(ring[(t - 1) % stages], Stage<1>{});
      if constexpr (stages == 3)
        if (t - 2 >= first) f(ring[(t - 2) % stages], Stage<2>{});
    };
    if (t < last) ring[t % stages].start(task, t);
    for (int64_t begin = 0; begin < k; begin += Row::kPart) {
      const int64_t end = begin + Row::kPart < k ? begin + Row::kPart : k;
      each_stage([&](Row& row, auto stage) __attribute__((always_inline)) { row.part(stage, begin, end); });
    }
    each_stage([&](Row& row, auto stage) __attribute__((always_inline)) { row.finish(stage); });
  }
}

// Whether rows of k elements, each `bytes` long, are written past the caches: whole lines, and more than would stay.
inline bool goes_past_caches(const void* rows, int64_t m, int64_t k, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(rows) % 64 == 0 && k % 64 == 0 && m * k * bytes > device().l3_bytes / 2;
}

// What the rows of one task share.
template <class Op>
struct Task {
  const Op& op;
  bool stream;    // codes go past the caches
  bool fetch;     // several rows, one after the other
  bool flush;     // subnormals on their way to a code may become 0
  char* values;   // rows of workspace
  int64_t pitch;  // bytes from one to the next

  void* value_row(int64_t i) const { return values + i * pitch; }
  Codes codes_row(int64_t m) const { return {static_cast<uint8_t*>(op.codes) + m * op.k, stream}; }
};

// Runs all rows of op, several to a task, with `count` rows of values of `bytes` each as workspace.
template <int stages, class Row, int count, class Op>
inline void run_rows(const Op& op, int64_t bytes, bool flush, const Executor& executor) {
  const int64_t fair = op.m / (4 * (executor.threads > 1 ? executor.threads : 1));
  const int64_t chunk = fair < 1 ? 1 : fair > 64 ? 64 : fair;
  const bool stream = goes_past_caches(op.codes, op.m, op.k, 1);
  const int64_t pitch = round_up(op.k, 64) * bytes + 1088;  // not a multiple of a page: rows share no lines of L1
  parallel_chunks(executor, op.m, chunk, [&](int64_t first, int64_t last) {
    char* values = count ? static_cast<char*>(scratch(Slot::tile, count * pitch)) : nullptr;
    run_stages<stages, Row>(Task<Op>{op, stream, last - first > 1, flush, values, pitch}, first, last, op.k);
    _mm_sfence();  // nothing else orders streamed stores
  });
}

// Where what is read at byte `i` of a row is followed, kAhead bytes later, in this row or the next.
inline const char* ahead_of(const void* row, int64_t i, int64_t bytes, int64_t stride) {
  const int64_t at = i + kAhead;
  return static_cast<const char*>(row) + (at < bytes ? at : at - bytes + stride);
}
inline void fetch_lines(const char* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T1);
}

// ---- plain
template <Format format, DType dtype, bool smoothed>
struct PlainRow {
  static constexpr int64_t kPart = 128;
  const Task<QuantizePerToken>* task;
  int64_t m;
  ActivationRow row;
  RowMost<dtype, smoothed> most;
  RowCodes<format, dtype, smoothed> codes;

  void start(const Task<QuantizePerToken>& t, int64_t index) {
    task = &t, m = index;
    row = {at<dtype>(t.op.x, m * t.op.x_stride), t.op.smooth, t.op.k, dtype};
    most = {};
  }
  void part(Stage<0>, int64_t begin, int64_t end) { most.add(row, begin, end); }
  void finish(Stage<0>) { codes = {most, row.k}; }
  void part(Stage<1>, int64_t begin, int64_t end) {
    const char* next = nullptr;  // the row that stage 0 reads meanwhile
    if (const int64_t stride = task->op.x_stride * dtype_bytes(dtype); task->fetch)
      next = ahead_of(row.x, begin * dtype_bytes(dtype), row.k * dtype_bytes(dtype), stride) + stride;
    codes.write(row, task->codes_row(m), begin, end, next);
  }
  void finish(Stage<1>) { task->op.scale[m] = codes.scale(); }
};

template <Format format>
void quantize_per_token(const QuantizePerToken& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    if (op.smooth)
      run_rows<2, PlainRow<format, dtype, true>, 0>(op, 0, false, executor);
    else
      run_rows<2, PlainRow<format, dtype, false>, 0>(op, 0, false, executor);
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
// What is good enough for codes whose scale tells no subnormal from 0.
template <DType dtype>
constexpr Rounding kQuickest = dtype == DType::bf16 && kFlushingBf16 ? Rounding::flushing : Rounding::upper;
// Factors up to this leave a subnormal below 2^-111, half a step of an E4M3 code at a scale of 2^-100.
constexpr float kModerate = 0x1p15f;

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

// Calls f(a, b, out, i) for runs of 64 of the elements begin .. end of a, b (or null) and out (or null); the last,
// where the row ends in one, on copies padded with zeros.
template <DType dtype, class F>
inline __attribute__((always_inline)) void for_each_run(int64_t begin, int64_t end, const void* a, const void* b,
                                                        void* out, F&& f) {
  int64_t i = begin;
  for (; i + 64 <= end; i += 64)
    f(at<dtype>(a, i), b ? at<dtype>(b, i) : nullptr, out ? at<dtype>(out, i) : nullptr, i);
  if (i >= end) return;
  const int64_t bytes = (end - i) * dtype_bytes(dtype);
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

// One row of an RMSNorm, on any part of it.
template <DType dtype>
struct Norm {
  const void *x, *residual, *weight;
  void* h;                           // x + residual, rounded; null without a residual
  void* streamed;                    // where h goes past the caches too, or null
  int64_t k, next_x, next_residual;  // bytes to the next row of either
  float eps, r;
  bool fetch;  // the next row follows
  SquareSum<dtype> squares;

  template <class Op>
  void start(const Op& op, int64_t m, bool fetch_next, void* workspace) {
    next_x = op.x_stride * dtype_bytes(dtype), next_residual = op.residual_stride * dtype_bytes(dtype);
    x = static_cast<const char*>(op.x) + m * next_x;
    residual = op.residual ? static_cast<const char*>(op.residual) + m * next_residual : nullptr;
    weight = op.weight, k = op.k, eps = static_cast<float>(op.eps), fetch = fetch_next;
    h = residual ? at<dtype>(op.hidden, m * k) : nullptr;
    streamed = nullptr;
    if (h && workspace && goes_past_caches(op.hidden, op.m, k, dtype_bytes(dtype))) {
      streamed = h;
      h = workspace;
    }
    squares = {};
  }
  template <Rounding rounding>
  void add(int64_t begin, int64_t end) {
    const int64_t bytes = dtype_bytes(dtype);
    const char* ahead_x = fetch ? ahead_of(x, begin * bytes, k * bytes, next_x) : nullptr;
    const char* ahead_residual =
        fetch && residual ? ahead_of(residual, begin * bytes, k * bytes, next_residual) : nullptr;
    SquareSum<dtype> sum = squares;  // in registers
    for_each_run<dtype>(begin, end, x, residual, h,
                        [&](const void* a, const void* b, void* out, int64_t i) __attribute__((always_inline)) {
                          if (ahead_x) fetch_lines(ahead_x + (i - begin) * bytes, 64 * bytes);
                          if (ahead_residual) fetch_lines(ahead_residual + (i - begin) * bytes, 64 * bytes);
                          for_each_side([&](auto side, int j) __attribute__((always_inline)) {
                            using Run = Values<dtype, decltype(side)::n>;
                            Run v = Run::load(at<dtype>(a, 16 * j));
                            if (b) {
                              v.each(Run::load(at<dtype>(b, 16 * j)),
                                     [](F32x16 one, F32x16 other) { return one + other; });
                              v.template round<rounding>();
                              v.store(at<dtype>(out, 16 * j));
                            }
#pragma GCC unroll 4
                            for (int n = 0; n < decltype(side)::n; ++n)
                              sum.lanes[j + n] = fma(v.v[n], v.v[n], sum.lanes[j + n]);
                          });
                          if (streamed) stream_values(at<dtype>(streamed, i), out);
                        });
    squares = sum;
  }
  // r, of all squares; false where the row holds, or came to, Inf or NaN.
  bool find_r() {
    const float sum = squares.total();
    r = 1.0f / __builtin_sqrtf(sum / static_cast<float>(k) + eps);
    return sum - sum == 0.0f && r - r == 0.0f;
  }
  void repeat_canonical() {
    squares = {};
    add<Rounding::canonical>(0, k);
    find_r();
  }
  // normed = round(weight * round(h * r)); its largest magnitude.
  template <Rounding rounding>
  void scale(int64_t begin, int64_t end, void* normed, RowMost<dtype, false>& most) const {
    RowMost<dtype, false> local = most;  // in registers
    const F32x16 by = splat(r);
    for_each_run<dtype>(begin, end, h ? h : x, weight, normed,
                        [&](const void* a, const void* b, void* out, int64_t) __attribute__((always_inline)) {
                          for_each_side([&](auto side, int j) __attribute__((always_inline)) {
                            using Run = Values<dtype, decltype(side)::n>;
                            Run v = Run::load(at<dtype>(a, 16 * j));
                            v.each([by](F32x16 one) { return one * by; });
                            v.template round<rounding>();
                            v.each(Run::load(at<dtype>(b, 16 * j)), [](F32x16 one, F32x16 w) { return w * one; });
                            v.template store<rounding>(at<dtype>(out, 16 * j));
                          });
                          local.add(out, nullptr);
                        });
    most = local;
  }

 private:
  static void stream_values(void* to, const void* from) {
    for (int64_t i = 0; i < 64 * dtype_bytes(dtype); i += 64) {
      Line line;
      __builtin_memcpy(&line, static_cast<const char*>(from) + i, 64);
      stream_line(static_cast<char*>(to) + i, line);
    }
  }
};

inline void rms_norm_rows(const RmsNorm& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    parallel_for(executor, op.m, [&](int64_t m) {
      void* normed = at<dtype>(op.normed, m * op.k);
      RowMost<dtype, false> most;
      Norm<dtype> norm;
      norm.start(op, m, false, nullptr);
      norm.template add<Rounding::upper>(0, op.k);
      const bool finite = norm.find_r();
      norm.template scale<Rounding::upper>(0, op.k, normed, most);
      if (finite && most.is_finite()) return;
      norm.repeat_canonical();
      norm.template scale<Rounding::canonical>(0, op.k, normed, most);
    });
  });
}

// ---- RMSNorm and quantization
template <Format format, DType dtype>
struct NormRow {
  static constexpr int64_t kPart = 512;
  const Task<RmsNormQuantize>* task;
  int64_t m;
  Norm<dtype> norm;
  bool finite;
  void* v;
  RowMost<dtype, false> most;
  RowCodes<format, dtype, false> codes;

  void start(const Task<RmsNormQuantize>& t, int64_t index) {
    task = &t, m = index;
    norm.start(t.op, m, t.fetch, t.value_row(m % 2));
    v = t.value_row(2 + m % 2);
    most = {};
  }
  void part(Stage<0>, int64_t begin, int64_t end) { norm.template add<Rounding::upper>(begin, end); }
  void finish(Stage<0>) {
    finite = norm.find_r();
    if (!finite) norm.repeat_canonical();
  }
  void part(Stage<1>, int64_t begin, int64_t end) {
    if (!finite) return norm.template scale<Rounding::canonical>(begin, end, v, most);
    if (task->flush) return norm.template scale<kQuickest<dtype>>(begin, end, v, most);
    norm.template scale<Rounding::upper>(begin, end, v, most);
  }
  void finish(Stage<1>) {
    codes = {most, norm.k};
    if (!task->flush || codes.hides_subnormals()) return;
    most = {};
    norm.template scale<Rounding::canonical>(0, norm.k, v, most);
    codes = {most, norm.k};
  }
  void part(Stage<2>, int64_t begin, int64_t end) {
    codes.write({v, nullptr, norm.k, dtype}, task->codes_row(m), begin, end, nullptr);
  }
  void finish(Stage<2>) { task->op.scale[m] = codes.scale(); }
};

template <Format format>
void rms_norm_quantize(const RmsNormQuantize& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    bool flush = false;  // a subnormal times a weight must stay below what a scale of 2^-100 tells from 0
    if constexpr (kQuickest<dtype> == Rounding::flushing) {
      RowMost<dtype, false> most;
      most.add({op.weight, nullptr, op.k, dtype}, 0, op.k);
      flush = most.most() <= kModerate;
    }
    run_rows<3, NormRow<format, dtype>, 4>(op, dtype_bytes(dtype), flush, executor);
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

// v = round(round(silu(gate)) * up) for any part of a row; the largest magnitudes of v and of up.
template <DType dtype, Rounding rounding>
inline void silu_mul_part(const void* gate, const void* up, int64_t begin, int64_t end, const char* ahead_gate,
                          const char* ahead_up, void* v, RowMost<dtype, false>& most, RowMost<dtype, false>& most_up) {
  const int64_t bytes = dtype_bytes(dtype);
  RowMost<dtype, false> local = most, local_up = most_up;  // in registers
  for_each_run<dtype>(begin, end, gate, up, v,
                      [&](const void* a, const void* b, void* out, int64_t i) __attribute__((always_inline)) {
                        if (ahead_gate) {
                          fetch_lines(ahead_gate + (i - begin) * bytes, 64 * bytes);
                          fetch_lines(ahead_up + (i - begin) * bytes, 64 * bytes);
                        }
                        for_each_side([&](auto side, int j) __attribute__((always_inline)) {
                          using Run = Values<dtype, decltype(side)::n>;
                          Run value = Run::load(at<dtype>(a, 16 * j));
                          silu<dtype, rounding>(value.v);
                          value.template round<rounding>();
                          value.each(Run::load(at<dtype>(b, 16 * j)), [](F32x16 one, F32x16 by) { return one * by; });
                          value.template store<rounding>(at<dtype>(out, 16 * j));
                        });
                        local.add(out, nullptr);
                        if constexpr (rounding == Rounding::flushing) local_up.add(b, nullptr);
                      });
  most = local, most_up = local_up;
}

inline void silu_mul_rows(const SiluMul& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    parallel_for(executor, op.m, [&](int64_t m) {
      const void* gate = at<dtype>(op.gate_up, m * op.x_stride);
      const void* up = at<dtype>(gate, op.k);
      void* y = at<dtype>(op.y, m * op.k);
      RowMost<dtype, false> most, most_up;
      silu_mul_part<dtype, Rounding::upper>(gate, up, 0, op.k, nullptr, nullptr, y, most, most_up);
      if (most.is_finite()) return;
      silu_mul_part<dtype, Rounding::canonical>(gate, up, 0, op.k, nullptr, nullptr, y, most, most_up);
    });
  });
}

// ---- SiLU and quantization
template <Format format, DType dtype>
struct SiluRow {
  static constexpr int64_t kPart = 512;
  const Task<SiluMulQuantize>* task;
  int64_t m;
  const void *gate, *up;
  void* v;
  RowMost<dtype, false> most, most_up;
  RowCodes<format, dtype, false> codes;

  void start(const Task<SiluMulQuantize>& t, int64_t index) {
    task = &t, m = index;
    gate = at<dtype>(t.op.gate_up, m * t.op.x_stride);
    up = at<dtype>(gate, t.op.k);
    v = t.value_row(m % 2);
    most = {}, most_up = {};
  }
  void part(Stage<0>, int64_t begin, int64_t end) {
    const int64_t bytes = dtype_bytes(dtype);
    const auto ahead = [&](const void* row) {
      return task->fetch ? ahead_of(row, begin * bytes, task->op.k * bytes, task->op.x_stride * bytes) : nullptr;
    };
    silu_mul_part<dtype, kQuickest<dtype>>(gate, up, begin, end, ahead(gate), ahead(up), v, most, most_up);
  }
  void finish(Stage<0>) {
    codes = {most, task->op.k};
    if (kQuickest<dtype> != Rounding::flushing || (codes.hides_subnormals() && most_up.most() <= kModerate)) return;
    most = {};
    silu_mul_part<dtype, Rounding::upper>(gate, up, 0, task->op.k, nullptr, nullptr, v, most, most_up);
    codes = {most, task->op.k};
  }
  void part(Stage<1>, int64_t begin, int64_t end) {
    codes.write({v, nullptr, task->op.k, dtype}, task->codes_row(m), begin, end, nullptr);
  }
  void finish(Stage<1>) { task->op.scale[m] = codes.scale(); }
};

template <Format format>
void silu_mul_quantize(const SiluMulQuantize& op, const Executor& executor) {
  with_dtype(op.x_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    run_rows<2, SiluRow<format, dtype>, 2>(op, dtype_bytes(dtype), true, executor);
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
