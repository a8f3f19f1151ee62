// SPDX-License-Identifier: Apache-2.0
// gptq_kernels.h: gptq.h's kernels for the instruction set of the file that includes it.
//
// Micro-tile: kRows rows by 2 vectors. AVX-512: 8 x 32, 16 accumulators; per step 2 loads and 8 broadcasts for 16
// FMAs. AVX2: 4 x 16, 8 accumulators, which just cover the latency of two FMA pipes.
//
// Tried, one Ice Lake core, K = 4096, N = 32 (mostly the factorization) and N = 1024: no prefetch 0.42 and 0.70 s; the
// next tile fetched by every product, 8 panels per task instead of 2: 0.37 and 0.69; the next panel too: 0.29 and 0.58.
#pragma once
#include <cmath>

#include "gptq.h"
#include "lanes.h"
#include "pennyweight/numerics.h"

namespace pennyweight::cpu {
namespace {

constexpr int kRows = kLanes == 16 ? 8 : 4;
constexpr int kVectors = 2;
constexpr int kWidth = kVectors * kLanes;  // columns of a micro-tile: 32 or 16

constexpr int kBlocks = kStrip / kWidth * (kTile / kRows);  // micro-tiles of a product

enum class Left { down, across };  // whether the summed index runs down the left operand's panel or across it

// What a product fetches to L2 for the next one: the panel in the first half of its micro-tiles, the tile in the
// second.
struct Ahead {
  const float* at;
  int step;  // floats per step of the product
  Ahead(const float* tile, const float* panel, int block)
      : at(block < kBlocks / 2 ? panel + block * (2 * kStripFloats / kBlocks)
                               : tile + (block - kBlocks / 2) * (2 * kTileFloats / kBlocks)),
        step(2 * (block < kBlocks / 2 ? kStripFloats : kTileFloats) / (kBlocks * kTile)) {}
};

// acc (kRows, kWidth) +-= sum over t < count of a_it b_t, where a_it is a[t][i] (down) or a[i][t] (across).
template <Left kLeft, bool kSubtract, bool kFetch = false>
static inline void multiply(Lanes (&acc)[kRows][kVectors], const float* a, const float* b, int count,
                            const float* ahead = nullptr, int ahead_step = 0) {
  for (int t = 0; t < count; ++t) {
    if (kFetch) __builtin_prefetch(ahead + t * ahead_step, 0, 2);
    Lanes right[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) right[v] = load(b + t * kStrip + v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Lanes left = all(kLeft == Left::down ? a[t * kStrip + i] : a[i * kStrip + t]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v)
        acc[i][v] = kSubtract ? fnma(left, right[v], acc[i][v]) : fma(left, right[v], acc[i][v]);
    }
  }
}

static inline void load_tile(Lanes (&acc)[kRows][kVectors], const float* c) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) acc[i][v] = load(c + i * kStrip + v * kLanes);
}
static inline void store_tile(const Lanes (&acc)[kRows][kVectors], float* c) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(c + i * kStrip + v * kLanes, acc[i][v]);
}

// Element (a, b) of a tile.
static inline int at(int a, int b) { return b / kStrip * kStripFloats + a * kStrip + b % kStrip; }

static void subtract_product(float* c, const float* a, const float* b, const float* next_a, const float* next_b) {
  int block = 0;
  for (int v = 0; v < kStrip; v += kWidth)
    for (int i = 0; i < kTile; i += kRows) {
      const Ahead ahead(next_a, next_b, block++);
      Lanes acc[kRows][kVectors];
      load_tile(acc, c + i * kStrip + v);
      multiply<Left::down, true, true>(acc, a + at(0, i), b + v, kTile, ahead.at, ahead.step);
      store_tile(acc, c + i * kStrip + v);
    }
}

static void add_product(float* c, const float* a, const float* b, const float* next_a, const float* next_b) {
  int block = 0;
  for (int v = 0; v < kStrip; v += kWidth)
    for (int i = 0; i < kTile; i += kRows) {
      const Ahead ahead(next_a, next_b, block++);
      Lanes acc[kRows][kVectors];
      load_tile(acc, c + i * kStrip + v);
      for (int t = 0; t < kTile; t += kStrip)
        multiply<Left::across, false, true>(acc, a + at(i, t), b + t * kStrip + v, kStrip, ahead.at + t * ahead.step,
                                            ahead.step);
      store_tile(acc, c + i * kStrip + v);
    }
}

// The rows a .. a + kRows, once what the rows above contribute is subtracted: x_i = (c_i - sum_{j < i} U_ji x_j) /
// U_ii. corner: U's (a, a), rows kStrip apart.
static inline void finish_rows(const float* corner, const float* inverse, Lanes (&acc)[kRows][kVectors]) {
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) acc[i][v] = acc[i][v] * all(inverse[i]);
#pragma GCC unroll 8
    for (int j = i + 1; j < kRows; ++j)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) acc[j][v] = fnma(all(corner[i * kStrip + j]), acc[i][v], acc[j][v]);
  }
}

static void solve_panel(const float* tile, const float* inverse, float* panel) {
  for (int v = 0; v < kStrip; v += kWidth)
    for (int a = 0; a < kTile; a += kRows) {
      Lanes acc[kRows][kVectors];
      load_tile(acc, panel + a * kStrip + v);
      multiply<Left::down, true>(acc, tile + at(0, a), panel + v, a);
      finish_rows(tile + at(a, a), inverse + a, acc);
      store_tile(acc, panel + a * kStrip + v);
    }
}

// Factors a kRows x kRows matrix in place, its rows kStrip apart.
static bool factor_corner(float* corner, const float* floor, float* inverse) {
  for (int i = 0; i < kRows; ++i) {
    float* row = corner + i * kStrip;
    if (!(row[i] > floor[i]) || !is_finite(row[i])) return false;
    inverse[i] = 1.0f / __builtin_sqrtf(row[i]);
    for (int j = i; j < kRows; ++j) row[j] *= inverse[i];
    for (int r = i + 1; r < kRows; ++r)
      for (int j = r; j < kRows; ++j) corner[r * kStrip + j] = fma_f32(-row[r], row[j], corner[r * kStrip + j]);
  }
  return true;
}

// Blocks of rows from the top: what the rows above contribute, the corner (in a copy), the whole rows by the corner.
// Columns below the diagonal are computed along with their vector and never read.
static bool factor_tile(float* tile, const float* floor, float* inverse) {
  for (int a = 0; a < kTile; a += kRows) {
    const int first = a / kWidth * kWidth;
    for (int b = first; b < kTile; b += kWidth) {
      Lanes acc[kRows][kVectors];
      load_tile(acc, tile + at(a, b));
      multiply<Left::down, true>(acc, tile + at(0, a), tile + at(0, b), a);
      store_tile(acc, tile + at(a, b));
    }
    float corner[kRows * kStrip];
    for (int i = 0; i < kRows; ++i)
      for (int j = 0; j < kRows; ++j) corner[i * kStrip + j] = tile[at(a + i, a + j)];
    if (!factor_corner(corner, floor + a, inverse + a)) return false;
    for (int b = first; b < kTile; b += kWidth) {
      Lanes acc[kRows][kVectors];
      load_tile(acc, tile + at(a, b));
      finish_rows(corner, inverse + a, acc);
      store_tile(acc, tile + at(a, b));
    }
  }
  return true;
}

// Columns from the last to the first, kRows at a time: first what the block's finished columns contribute, then one
// column after the other in registers.
static void solve_block(const GptqBlock& block) {
  const Lanes low = all(block.low), high = all(block.high);
  for (int v = 0; v < kStrip; v += kWidth) {
    Lanes loss[kVectors], error[kVectors];
    for (int u = 0; u < kVectors; ++u) {
      loss[u] = load(block.loss + v + u * kLanes);
      error[u] = load(block.error + v + u * kLanes);
    }
    for (int a = kTile - kRows; a >= 0; a -= kRows) {
      Lanes acc[kRows][kVectors];
      load_tile(acc, block.sums + a * kStrip + v);
      for (int t = a + kRows; t < kTile; t = (t / kStrip + 1) * kStrip)
        multiply<Left::across, false>(acc, block.tile + at(a, t), block.residual + t * kStrip + v, kStrip - t % kStrip);
#pragma GCC unroll 8
      for (int i = kRows - 1; i >= 0; --i) {
        const float* scales = block.scale[a + i] + v;
        int8_t* codes = block.codes[a + i] + v;
        float* residual = block.residual + (a + i) * kStrip + v;
        const Lanes inverse = all(block.inverse[a + i]), diagonal = all(block.tile[at(a + i, a + i)]);
#pragma GCC unroll 8
        for (int u = 0; u < kVectors; ++u) {
          const Lanes scale = load(scales + u * kLanes), w = load(residual + u * kLanes);
          const Lanes target = fma(acc[i][u], inverse, w);
          const Lanes code = greater(low, lesser(high, round_even(target / scale)));
          const Lanes d = fnma(code, scale, w), miss = fnma(code, scale, target) * diagonal;
          store_int8(codes + u * kLanes, code);
          store(residual + u * kLanes, d);
          loss[u] = fma(miss, miss, loss[u]);
          error[u] = fma(d, d, error[u]);
#pragma GCC unroll 8
          for (int j = 0; j < i; ++j) acc[j][u] = fma(all(block.tile[at(a + j, a + i)]), d, acc[j][u]);
        }
      }
    }
    for (int u = 0; u < kVectors; ++u) {
      store(block.loss + v + u * kLanes, loss[u]);
      store(block.error + v + u * kLanes, error[u]);
    }
  }
}

static void add_norms(const float* block, const float* diagonal, float* norm, float* weighted) {
  for (int v = 0; v < kStrip; v += kLanes) {
    Lanes sum = load(norm + v), weighted_sum = load(weighted + v);
    for (int a = 0; a < kTile; ++a) {
      const Lanes w = load(block + a * kStrip + v), square = w * w;
      sum += square;
      weighted_sum = fma(square, all(diagonal[a]), weighted_sum);
    }
    store(norm + v, sum);
    store(weighted + v, weighted_sum);
  }
}

static void load_strip(const void* weight, DType dtype, int64_t rows, int64_t stride, int64_t k, const int64_t* place,
                       float* strip) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) strip[place[i] * kStrip + r] = load_f32(weight, dtype, r * stride + i);
}

static void store_codes(const int8_t* strip, int64_t rows, int64_t k, int8_t* codes) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) codes[r * k + i] = strip[i * kStrip + r];
}

constexpr GptqKernels kGptqKernels{subtract_product, factor_tile, solve_panel, add_product,
                                   solve_block,      add_norms,   load_strip,  store_codes};

}  // namespace
}  // namespace pennyweight::cpu
