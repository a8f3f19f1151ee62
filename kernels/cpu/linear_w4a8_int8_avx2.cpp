// SPDX-License-Identifier: Apache-2.0
// linear_w4a8_int8_avx2.cpp: the tile of linear_w4a8_int8.h on vpmaddubsw: up to 4 rows by 64 outputs.
//
// vpmaddubsw adds two products into 16 bits. With nibbles (0 .. 15) and codes (-128 .. 127) a pair is at most 3840, so
// eight of them, 32 k of a lane, fit: 30720 < 32768, and nothing saturates. Then one vpmaddwd with ones widens to
// int32.
//
//   32 k = 4 steps:  8 vpmaddubsw + 7 vpaddw  →  1 vpmaddwd + 1 vpaddd          per row and 8 outputs
//
// A pass is 4 rows by 8 outputs, 2 by 16 or 1 by 32; a group's 4 KB stay in L1 over the passes.
//
// Needs     AVX2
// Limit     four operations per 64 products and register: twice the rate of W8A8 on this instruction set
// Tried     Zen 4, (4096, 4096), groups of 128, one thread, thread CPU time: M = 1 310 us, M = 16 2.2 ms (248 GOP/s).
//           Prefetching a group's 66 lines at its start instead of along its steps: 517 us at M = 1. Passes of 6 rows
//           by 16 outputs, 12 sums of 16 bits in registers and those of 32 in L1: 10 % faster at M = 4, the same 63 %
//           of the peak from M = 16 on.
#include "kernels_int8.h"
#include "linear_w4a8_int8.h"

namespace pennyweight::cpu::avx2 {
namespace {

constexpr int64_t kExactSteps = 4;  // after so many the 16-bit sums are widened

// The sums of one group, rows x (8 * width) outputs from output n0 on, into sum [row][64].
template <int rows, int width, int lines>
void pass(const TileArgs& args, const uint8_t* group, const int32_t* x, const int32_t* minus_sum, const char* prefetch,
          int n0, int32_t* sum) {
  const Int4Panel& panel = *args.panel;
  const __m256i mask = _mm256_set1_epi8(0x0f), ones = _mm256_set1_epi16(1);
  __m256i acc[rows][width];
#pragma GCC unroll 4
  for (int j = 0; j < width; ++j) {
    __m256i offset = _mm256_set1_epi32(8);
    if (panel.zero_points) {
      const void* zeros = group + panel.zero_offset() + n0 + 8 * j;
      offset = _mm256_add_epi32(offset, _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(zeros))));
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
      acc[r][j] = _mm256_mullo_epi32(offset, _mm256_set1_epi32(minus_sum[r * args.sum_stride]));
  }
  const uint8_t* w = group + n0 * 4;
  for (int64_t left = panel.steps(); left > 0; left -= kExactSteps) {
    __m256i narrow[rows][width];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < width; ++j) narrow[r][j] = _mm256_setzero_si256();
    for (int64_t step = left < kExactSteps ? left : kExactSteps; step > 0; --step, w += kStepBytes, x += 2 * rows) {
      for (int i = 0; i < lines; ++i) _mm_prefetch(prefetch + 64 * i, _MM_HINT_T0);
      prefetch += 64 * lines;
#pragma GCC unroll 4
      for (int j = 0; j < width; ++j) {
        const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32 * j));
        const __m256i low = _mm256_and_si256(v, mask), high = _mm256_and_si256(_mm256_srli_epi16(v, 4), mask);
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
          const __m256i a = _mm256_maddubs_epi16(low, _mm256_set1_epi32(x[r]));
          const __m256i b = _mm256_maddubs_epi16(high, _mm256_set1_epi32(x[rows + r]));
          narrow[r][j] = _mm256_add_epi16(narrow[r][j], _mm256_add_epi16(a, b));
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < width; ++j) acc[r][j] = _mm256_add_epi32(acc[r][j], _mm256_madd_epi16(narrow[r][j], ones));
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < width; ++j)
      _mm256_store_si256(reinterpret_cast<__m256i*>(sum + r * kPanel + n0 + 8 * j), acc[r][j]);
}

template <int rows, int width>
void tile_of(const TileArgs& args) {
  constexpr int passes = 8 / width, per_pass = width == 4 ? 2 : 1;  // the first passes prefetch, args.lines in all
  const Int4Panel& panel = *args.panel;
  const uint8_t* group = args.weight;
  const int32_t* x = args.rows;
  const char* prefetch = args.prefetch;
  alignas(64) int32_t sum[rows * kPanel];
  for (int64_t g = 0; g < args.groups; ++g) {
    if (args.lines == 4) prefetch_tail(args, prefetch);
    for (int i = 0; i < passes; ++i) {
      const char* ahead = prefetch + i * per_pass * panel.steps() * 64;
      if (i * per_pass < args.lines)
        pass<rows, width, per_pass>(args, group, x, args.minus_sum + g, ahead, 8 * width * i, sum);
      else
        pass<rows, width, 0>(args, group, x, args.minus_sum + g, nullptr, 8 * width * i, sum);
    }
    F32x16 scale[4];
    group_scales(args, group, scale);
    for (int r = 0; r < rows; ++r)
      for (int j = 0; j < 4; ++j) {
        float* total = args.total + r * kPanel + 16 * j;
        store_f32(total, fma(to_float(load_i32(sum + r * kPanel + 16 * j)), scale[j], load_f32(total)));
      }
    prefetch += args.prefetch_group;
    group += panel.group_bytes();
    x += 2 * panel.steps() * rows;
  }
}

struct Kernel {
  static constexpr int kRows = 4, kStreamRows = 4;
  static constexpr bool kHasNarrow = false;
  static float quantize_row(const ActivationRow& row, int8_t* codes) { return quantize_row_int8(row, codes); }
  static void tile(int rows, const TileArgs& args) {
    static constexpr void (*tiles[])(const TileArgs&) = {tile_of<1, 4>, tile_of<2, 2>, tile_of<3, 1>, tile_of<4, 1>};
    tiles[rows - 1](args);
  }
};

}  // namespace

void linear_w4a8_int8(const LinearW4A8Int8& op, const Executor& executor) { multiply<Kernel>(op, executor); }

}  // namespace pennyweight::cpu::avx2
