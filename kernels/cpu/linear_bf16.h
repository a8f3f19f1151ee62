// SPDX-License-Identifier: Apache-2.0
// linear_bf16.h: y = x . w^T (+ bias), everything bf16, w row-major, for few rows of x; on the lanes of lanes.h
//
//   y[m,n] = sum_k x[m,k] * w[n,k]                                        float32 sums, rounded once
//
// Shapes    x (M,K), w (N,K), y (M,N), bf16, any row strides; bias (N,) or null
// Needs     any M, N, K; nothing aligned. w is read as it lies (an LM head shares it with the embedding)
// Walk      a task is kTaskRows outputs. With one row of x it reads them one after the other, in the order of memory;
//           with more it takes kRows of them at a time by up to kTokens rows of x, whose sums are in registers:
//
//             K ->  32 or 16 at once
//           N +-----------------------+   kRows streams of memory, each prefetched kPrefetch elements ahead where
//           4 | |>>>     . prefetched |   reading them is the limit; more than kTokens rows of x: once more, from
//             +-----------------------+   cache
//
// Decode    a dword holds k and k + 1: shifted left by 16 and masked it is both as float32, of w and of x alike; no
//           conversion of x beforehand, no workspace
// Numerics  the sum of an output is one chain per lane over ascending k, then a pairwise sum of the lanes: the same for
//           any M, kTokens and number of threads. Bound: gamma(K + 1) * sum |x||w| and half an ulp of bf16
// Limit     M = 1: bytes of w over read bandwidth; M = kTokens and more: 2 * M FMAs and M / kRows + 1 decodes of 2
//           instructions per line of 64 bytes
// Reference kernels/reference/linear.cpp        Source  own
// Tried     (128256, 2048) on both cores of an Ice Lake Xeon at 2.8 GHz, 26 GB/s, medians of 13:
//           M = 1: 21.7 ms, 93 % of the read bandwidth (AVX2 22.7); no prefetch 24 to 26; 1 KB ahead 21.4 (AVX2
//           24.5), 2 KB 23.4; the next four rows ahead, in the order of addresses, 26.5. 1, 2, 8 rows at a time
//           without prefetch: 26, 27.9, 22.8.  M = 4: 29 ms; 2 rows 35.8, 8 rows 28.4; prefetch here too 32.9
//           Zen 4, both cores, 33 GB/s, M = 1: 4 rows at a time, prefetched 512 B ahead 20 to 22 ms; next four rows to
//           L2 16.9; one row at a time, no prefetch 15 to 18, 8 or 16 KB ahead to L2 13.3 to 17,
//           to L1 past L2 the same, which leaves L2 to others. Huge pages: nothing.
//           avx512bf16: left out. Up to 3 rows of x memory is the limit; beyond, torch has that instruction itself
#pragma once
#include "lanes.h"
#include "pennyweight/executor.h"
#include "pennyweight/linear.h"
#include "pennyweight/numerics.h"
#include "unroll.h"

namespace pennyweight::cpu {
namespace {

constexpr int kRows = 4;                       // outputs at a time
constexpr int kTokens = kLanes == 16 ? 4 : 2;  // rows of x at a time: kRows * kTokens sums, 2 * kTokens of x
constexpr int kStep = 2 * kLanes;              // elements of K at a time
constexpr int64_t kTaskRows = 64;
constexpr int64_t kTokensAtOnce = 64;  // rows of x that pass over a task's outputs before the next: both stay in L2
constexpr int kPrefetch = 256;         // elements of K ahead
constexpr int kPrefetchAlone = 4096;   // the same of one output and one row of x: to L2, in the order of memory
constexpr int kPrefetchTokens = 2;     // with more rows of x arithmetic is the limit

// Element i of every pair and element i + 1 of every pair, as float32.
struct Pairs {
  Lanes even, odd;
};
static inline PW_INLINE Pairs pairs(Bits v) { return {(Lanes)(v << 16), (Lanes)(v & (int32_t)0xffff0000)}; }
static inline PW_INLINE Bits load_pairs(const uint16_t* p) {
  Bits v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
// The last `count` < kStep elements, zeros behind them.
static inline Bits load_last(const uint16_t* p, int64_t count) {
  Bits v = {};
  __builtin_memcpy(&v, p, count * 2);
  return v;
}

// sum[r][t] += x[t][k..] * w[r][k..] over one step; `load` reads a step.
template <int rows, int tokens, class Load>
static inline PW_INLINE void step(Lanes (&sum)[rows][tokens], const uint16_t* w, int64_t w_stride, const uint16_t* x,
                                  int64_t x_stride, Load load) {
  Pairs v[tokens];
  unroll<tokens>([&](auto t) PW_INLINE { v[t] = pairs(load(x + t * x_stride)); });
  unroll<rows>([&](auto r) PW_INLINE {
    const Pairs u = pairs(load(w + r * w_stride));
    unroll<tokens>([&](auto t) PW_INLINE { sum[r][t] = fma(u.even, v[t].even, sum[r][t]); });
    unroll<tokens>([&](auto t) PW_INLINE { sum[r][t] = fma(u.odd, v[t].odd, sum[r][t]); });
  });
}

// Outputs [n, n + rows) for the rows [m, m + tokens) of x.
template <int rows, int tokens>
static void tile(const LinearBf16& op, int64_t n, int64_t m) {
  const uint16_t* w = static_cast<const uint16_t*>(op.weight) + n * op.w_stride;
  const uint16_t* x = static_cast<const uint16_t*>(op.x) + m * op.x_stride;
  Lanes sum[rows][tokens];
  unroll<rows>([&](auto r) PW_INLINE { unroll<tokens>([&](auto t) PW_INLINE { sum[r][t] = none(); }); });
  int64_t k = 0;
  for (; k + kStep <= op.k; k += kStep) {
    if constexpr (rows == 1 && tokens == 1)
      _mm_prefetch(w + k + kPrefetchAlone, _MM_HINT_NTA);
    else if constexpr (tokens <= kPrefetchTokens)
      unroll<rows>([&](auto r) PW_INLINE { _mm_prefetch(w + r * op.w_stride + k + kPrefetch, _MM_HINT_T0); });
    step(sum, w + k, op.w_stride, x + k, op.x_stride, [](const uint16_t* p) PW_INLINE { return load_pairs(p); });
  }
  if (const int64_t left = op.k - k; left > 0)
    step(sum, w + k, op.w_stride, x + k, op.x_stride, [left](const uint16_t* p) { return load_last(p, left); });
  unroll<rows>([&](auto r) PW_INLINE {
    unroll<tokens>([&](auto t) PW_INLINE {
      float y = sum_of(sum[r][t]);
      if (op.bias) y += load_f32(op.bias, DType::bf16, n + r);
      store_f32(op.y, DType::bf16, (m + t) * op.y_stride + n + r, y);
    });
  });
}

// Outputs [n, n + rows) for the rows [m, last) of x, fewer than kTokens.
template <int rows, int tokens = kTokens - 1>
static void last_tile(const LinearBf16& op, int64_t n, int64_t m, int64_t last) {
  if (last - m == tokens)
    tile<rows, tokens>(op, n, m);
  else if constexpr (tokens > 1)
    last_tile<rows, tokens - 1>(op, n, m, last);
}

// Outputs [n, n + rows) for the rows [m, last) of x.
template <int rows>
static void block(const LinearBf16& op, int64_t n, int64_t m, int64_t last) {
  for (; m + kTokens <= last; m += kTokens) tile<rows, kTokens>(op, n, m);
  if (m < last) last_tile<rows>(op, n, m, last);
}

static void run_linear_bf16(const LinearBf16& op, const Executor& executor) {
  parallel_chunks(executor, op.n, kTaskRows, [&](int64_t first, int64_t end) {
    for (int64_t m = 0; m < op.m; m += kTokensAtOnce) {
      const int64_t last = m + kTokensAtOnce < op.m ? m + kTokensAtOnce : op.m;
      int64_t n = first;
      if (op.m > 1)
        for (; n + kRows <= end; n += kRows) block<kRows>(op, n, m, last);
      for (; n < end; ++n) block<1>(op, n, m, last);
    }
  });
}

}  // namespace
}  // namespace pennyweight::cpu
