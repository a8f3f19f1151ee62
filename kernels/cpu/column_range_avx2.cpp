// SPDX-License-Identifier: Apache-2.0
// column_range_avx2.cpp: minima, maxima and largest magnitudes of columns. A task is 512 columns, read row by row;
// bound by memory, so that wider vectors gain nothing.
#include "lanes.h"
#include "pennyweight/numerics.h"
#include "weight_scales.h"

namespace pennyweight::cpu {
namespace {

constexpr int64_t kColumns = 512;

static inline Lanes select(Bits condition, Lanes yes, Lanes no) { return (Lanes)(condition ? (Bits)yes : (Bits)no); }
// The smaller (larger) of `best` and v, where NaN comes in and stays.
static inline Lanes keep_low(Lanes best, Lanes v) { return select((best == best) & ~(v >= best), v, best); }
static inline Lanes keep_high(Lanes best, Lanes v) { return select((best == best) & ~(v <= best), v, best); }

// Folds rows of x into low and high (null: not wanted), columns begin .. end.
template <DType T, bool kMagnitude>
static void fold(const void* x, int64_t rows, int64_t stride, int64_t begin, int64_t end, float* low, float* high) {
  for (int64_t t = 0; t < rows; ++t) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const Lanes v = load_as<T>(x, t * stride + i);
      store(high + i, keep_high(load(high + i), kMagnitude ? magnitude(v) : v));
      if (!kMagnitude) store(low + i, keep_low(load(low + i), v));
    }
    for (; i < end; ++i) {
      const float loaded = load_f32(x, T, t * stride + i), v = kMagnitude ? __builtin_fabsf(loaded) : loaded;
      if (high[i] == high[i] && !(v <= high[i])) high[i] = v;
      if (!kMagnitude && low[i] == low[i] && !(v >= low[i])) low[i] = v;
    }
  }
}

template <bool kMagnitude>
static void fold_all(const void* x, DType dtype, int64_t rows, int64_t k, int64_t stride, float* low, float* high,
                     const Executor& executor) {
  parallel_chunks(executor, k, kColumns, [&](int64_t begin, int64_t end) {
    if (dtype == DType::f32)
      fold<DType::f32, kMagnitude>(x, rows, stride, begin, end, low, high);
    else if (dtype == DType::f16)
      fold<DType::f16, kMagnitude>(x, rows, stride, begin, end, low, high);
    else
      fold<DType::bf16, kMagnitude>(x, rows, stride, begin, end, low, high);
  });
}

}  // namespace

void column_range_avx2(const ColumnRange& op, const Executor& executor) {
  fold_all<false>(op.x, op.x_dtype, op.t, op.k, op.x_stride, op.low, op.high, executor);
}

void column_abs_max_avx2(const ColumnAbsMax& op, const Executor& executor) {
  for (int64_t i = 0; i < op.k; ++i) op.out[i] = 0.0f;
  fold_all<true>(op.weight, op.w_dtype, op.n, op.k, op.k, nullptr, op.out, executor);
}

}  // namespace pennyweight::cpu
