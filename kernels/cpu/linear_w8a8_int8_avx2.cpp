// SPDX-License-Identifier: Apache-2.0
// linear_w8a8_int8_avx2.cpp: the INT8 tile of linear_w8a8_int8.h on vpmaddwd: up to 4 rows by 64 outputs.
//
// vpmaddubsw would saturate (255 * 127 * 2 does not fit 16 bits), so bytes are widened to 16 bits, where vpmaddwd is
// exact. Widening costs one `and` and one shift for 32 weights, no shuffle: even k stay low bytes, odd k come down.
//
//   weights  k0 k1 k2 k3 (bytes of an output)     and 0x00ff → k0 k2      >> 8 → k1 k3      (16-bit pairs)
//   rows     packed the same way: per step and row a dword (k0, k2) and a dword (k1, k3), sign-extended
//
// A pass is 4 rows by 16 outputs: 8 accumulators, 4 registers of weights, 2 broadcasts; four passes make a panel.
// One row takes 64 outputs in one pass, two rows 32, so that M = 1 streams its weights in order.
//
// Needs     AVX2
// Limit     M = 1 by weight traffic; else by four operations (2 multiply, 2 add) per 32 products and register
// Tried     Zen 4, (4096, 4096), one thread, thread CPU time: M = 16 3.4 ms (156 GOP/s), M = 64 13.5 ms (159 GOP/s).
//           M = 4 as one stream without blocks: 1507 us instead of 916, its four passes read the panel from L2.
#include "kernels_int8.h"
#include "linear_w8a8_int8.h"
#include "pennyweight/device.h"

namespace pennyweight::cpu::avx2 {
namespace {

constexpr int kStepDwords = 2;  // per row

// rows x (8 * width) outputs from output n0 on; of what lies at `prefetch`, `advance` bytes per step are fetched.
template <int rows, int width>
void pass(const TileArgs& args, int n0, const char* prefetch, int advance) {
  __m256i acc[rows][width];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j) {
      const __m256i* before = reinterpret_cast<const __m256i*>(args.acc + r * kPanel + n0 + 8 * j);
      acc[r][j] = args.start ? _mm256_set1_epi32(args.start[r]) : _mm256_load_si256(before);
    }
  const int32_t* x = static_cast<const int32_t*>(args.rows);
  const uint8_t* w = args.weight + n0 * 4;
  const __m256i low = _mm256_set1_epi16(0x00ff);
  for (int64_t step = 0; step < args.steps; ++step, w += kStepBytes, x += kStepDwords * rows) {
    __m256i even[width], odd[width];
    // One row: a register of weights is used up at once, so nothing has to be kept.
    auto load_weight = [&](int j) __attribute__((always_inline)) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 32 * j));
      even[j] = _mm256_and_si256(v, low);
      odd[j] = _mm256_srli_epi16(v, 8);
    };
    for (int i = 0; i < advance; i += 64) _mm_prefetch(prefetch + i, _MM_HINT_T0);
    prefetch += advance;
    if constexpr (rows > 1) {
#pragma GCC unroll 8
      for (int j = 0; j < width; ++j) load_weight(j);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const __m256i x_even = _mm256_set1_epi32(x[kStepDwords * r]), x_odd = _mm256_set1_epi32(x[kStepDwords * r + 1]);
#pragma GCC unroll 8
      for (int j = 0; j < width; ++j) {
        if constexpr (rows == 1) load_weight(j);
        acc[r][j] = _mm256_add_epi32(acc[r][j], _mm256_madd_epi16(even[j], x_even));
        acc[r][j] = _mm256_add_epi32(acc[r][j], _mm256_madd_epi16(odd[j], x_odd));
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < width; ++j)
      _mm256_store_si256(reinterpret_cast<__m256i*>(args.acc + r * kPanel + n0 + 8 * j), acc[r][j]);
}

template <int rows, int width>
void tile_of(const TileArgs& args) {
  constexpr int passes = 8 / width;
  const int share = (args.advance + passes - 1) / passes;
  for (int i = 0; i < passes; ++i)
    pass<rows, width>(args, i * 8 * width, args.prefetch + i * share * args.steps, share);
}

struct Kernel {
  static constexpr int kRows = 4, kStreamRows = 1;  // two rows take two passes over a block
  static constexpr bool kHasNarrow = false;
  // From L1, because of the four passes: 8 KB is 5 % better than 16 KB at M = 16, 32 KB is 10 % worse.
  static int64_t block_bytes() { return device().l1_bytes / 4; }
  static float quantize_row(const ActivationRow& row, int8_t* codes) { return quantize_row_int8(row, codes); }
  static int64_t packed_bytes(const RowTiles& tiles, int64_t steps) {
    return tiles.m * round_up(steps, 4) * kStepDwords * 4;
  }
  static void* packed(void* rows, const RowTiles& tiles, int64_t tile, int64_t steps, int64_t step) {
    const int64_t dwords = tiles.first(tile) * round_up(steps, 4) + step * tiles.rows(tile);
    return static_cast<int32_t*>(rows) + dwords * kStepDwords;
  }
  // Codes widened to 16 bits, even and odd k apart: [step][row][even pair, odd pair].
  static void pack(const CodeRows& codes, int rows, int64_t steps, void* packed) {
    for (int r = 0; r < rows; ++r) {
      double* to = static_cast<double*>(packed) + r;  // 8 bytes per step and row
      for (int64_t step = 0; step < steps; step += 4, to += 4 * rows) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes.row(r) + step * 4));
        const __m128i even = _mm_srai_epi16(_mm_slli_epi16(v, 8), 8), odd = _mm_srai_epi16(v, 8);
        const __m128d low = _mm_castsi128_pd(_mm_unpacklo_epi32(even, odd));
        const __m128d high = _mm_castsi128_pd(_mm_unpackhi_epi32(even, odd));
        _mm_storel_pd(to, low);
        _mm_storeh_pd(to + rows, low);
        _mm_storel_pd(to + 2 * rows, high);
        _mm_storeh_pd(to + 3 * rows, high);
      }
    }
  }
  static void tile(int rows, const TileArgs& args) {
    static constexpr void (*tiles[])(const TileArgs&) = {tile_of<1, 8>, tile_of<2, 4>, tile_of<3, 2>, tile_of<4, 2>};
    tiles[rows - 1](args);
  }
};

}  // namespace

void gemm_w8a8_int8(const GemmW8A8Int8& op, const Executor& executor) { gemm<Kernel>(op, executor); }
void linear_w8a8_int8(const LinearW8A8Int8& op, const Executor& executor) { linear<Kernel>(op, executor); }

}  // namespace pennyweight::cpu::avx2
