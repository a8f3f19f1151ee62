// SPDX-License-Identifier: Apache-2.0
// linear_w8a8_int8.h: y = (codes . weight^T) * row_scale * col_scale + bias in INT8, the walk that both instruction
// sets share; linear_w8a8_int8_{avx2,avx512vnni}.cpp bring the tile.
//
//   acc[m,n] = sum_k x[m,k] * w[n,k]               exact int32
//   y[m,n]   = ((float)acc * row_scale[m]) * col_scale[n] + bias[n]     rounded once to y's type
//
// Weights are stored as u = w + 128 (INT8_PANEL), so sum x * w = sum x * u - 128 * sum x: accumulators start from
// -128 * sum x, one number per row, known when the row is quantized.
//
// Shapes    x (M,K) floats, or codes (M,K) with row_scale (M,); weight INT8_PANEL of (N,K); y (M,N)
// Walk      a task is a panel of 64 outputs, its weights read from memory once. Blocks of K steps stay in a cache while
//           every row tile passes over them; accumulators wait in 256 bytes per row:
//
//             panel (64 outputs)   K →
//             ┌────────┬────────┬────────┐
//             │block 0 │block 1 │  ...   │   for each block: for each row tile: tile += rows . block
//             └────────┴────────┴────────┘   meanwhile the next block is prefetched, spread evenly over the tiles
//
//           Block sizes are the tiles' own, by the cache that their passes need. One tile alone that takes all 64
//           outputs in one pass (M <= 6, AVX2: M = 1) has no blocks: the panel streams through, prefetched 8 KB ahead.
//           A narrow tile (M = 7 to 16, AVX-512) takes blocks of 16 KB from L1, 16 outputs at a time.
// Numerics  integer sums are exact, so neither blocks nor threads change a bit; the epilogue is linear.h's.
// Reference kernels/reference/linear.cpp
#pragma once
#include "int8_rows.h"
#include "pennyweight/linear.h"

namespace pennyweight::cpu {
namespace {

constexpr int64_t kStepBytes = 4 * kPanel;  // a step is 4 k of 64 outputs
constexpr int64_t kStreamAhead = 8192;
constexpr int64_t kNarrowSteps = 64;

// What a tile needs for one block of K.
struct TileArgs {
  const void* rows;       // the block's part of a packed tile
  const uint8_t* weight;  // the block
  int64_t steps;
  int32_t* acc;          // [row][64]
  const int32_t* start;  // first block: start value per row; later null: acc holds what came before
  const char* prefetch;  // from here on, `advance` bytes per step are fetched
  int advance;           // at most kStepBytes
};

struct PackedInt8 {
  void* rows;
  int32_t* start;  // (m,) -128 * sum of a row's codes
  float* scale;    // (m,)
};

inline void store_tile(const Output& out, const int32_t* acc, const float* row_scale, int64_t m, int rows, int64_t n0,
                       const float* col_scale, const float* bias) {
  for (int r = 0; r < rows; ++r, acc += kPanel) {
    if (out.dtype == DType::i32) {
      const int64_t left = out.n - n0;
      copy_bytes(static_cast<int32_t*>(out.y) + (m + r) * out.stride + n0, acc, (left < kPanel ? left : kPanel) * 4);
      continue;
    }
    const F32x16 scale = splat(row_scale[r]);
    store_row(out, m + r, n0, bias, [&](int64_t j) {
      const I32x16 sum = load_i32(acc + 16 * j);
      return to_float(sum) * scale * load_f32(col_scale + 16 * j);
    });
  }
}

// One task: row tiles [begin, end) of the block that starts at row m0, times one panel.
template <class Kernel>
void multiply_panel(const PackedInt8& packed, const RowTiles& tiles, int64_t begin, int64_t end, int64_t m0, int64_t k,
                    const uint8_t* panel, int64_t n0, const float* col_scale, const Output& out) {
  alignas(64) float scale[kPanel], bias[kPanel];
  panel_floats(col_scale, DType::f32, n0, out.n, scale);
  panel_floats(out.bias, out.dtype, n0, out.n, bias);
  const int64_t steps = (k + 3) / 4, count = end - begin;
  const bool stream = count == 1 && tiles.rows(begin) <= Kernel::kStreamRows;
  const int64_t block = stream ? steps : tiles.narrow ? kNarrowSteps : Kernel::block_bytes() / kStepBytes;
  const int64_t row0 = tiles.first(begin), rows = tiles.first(end - 1) + tiles.rows(end - 1) - row0;
  int32_t* acc = static_cast<int32_t*>(scratch(Slot::tile, rows * kPanel * 4));
  const int advance = static_cast<int>((kStepBytes + count - 1) / count);
  for (int64_t step = 0; step < steps; step += block) {
    const int64_t n = step + block < steps ? block : steps - step;
    const uint8_t* weight = panel + step * kStepBytes;
    const char* next = reinterpret_cast<const char*>(weight) + (stream ? kStreamAhead : n * kStepBytes);
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = tiles.first(t);
      const int height = tiles.rows(t);
      int32_t* c = acc + (row - row0) * kPanel;
      const TileArgs args{Kernel::packed(packed.rows, tiles, t, steps, step),
                          weight,
                          n,
                          c,
                          step == 0 ? packed.start + row : nullptr,
                          next + (t - begin) * advance * n,
                          advance};
      multiply_tile<Kernel>(tiles, height, args);
      if (step + n == steps) store_tile(out, c, packed.scale + row, m0 + row, height, n0, scale, bias);
    }
  }
}

template <class Kernel>
void multiply(const Activations& a, int64_t m, const uint8_t* weight, const float* col_scale, const Output& out,
              const Executor& executor) {
  const int64_t k = a.k, steps = (k + 3) / 4, panel_bytes = round_up(k, 4) * kPanel;
  for_each_row_block(m, [&](int64_t m0, int64_t m1) {
    const RowTiles tiles(m1 - m0, Kernel::kRows, Kernel::kHasNarrow);
    const PackedInt8 packed{scratch(Slot::activations, Kernel::packed_bytes(tiles, steps)),
                            static_cast<int32_t*>(scratch(Slot::sums, tiles.m * 4)),
                            static_cast<float*>(scratch(Slot::scales, tiles.m * 4))};
    const auto make = [&](int64_t row, int8_t* codes) {
      packed.scale[row] = read_row(a, m0 + row, codes, Kernel::quantize_row);
      packed.start[row] = -128 * sum_codes(codes, round_up(k, 16));
    };
    if (tiles.narrow)
      pack_narrow(executor, tiles, k, steps, kInOrder, static_cast<int32_t*>(packed.rows), make);
    else
      for_each_tile(executor, tiles, k, [&](int64_t t) {
        const int rows = tiles.rows(t);
        const CodeRows codes(k, rows);
        for (int r = 0; r < rows; ++r) make(tiles.first(t) + r, codes.row(r));
        Kernel::pack(codes, rows, steps, Kernel::packed(packed.rows, tiles, t, steps, 0));
      });
    const TaskGrid grid(out.n, tiles.count);
    parallel_for(executor, grid.tasks(), [&](int64_t task) {
      const int64_t panel = task / grid.runs(), begin = task % grid.runs() * grid.run;
      const int64_t end = begin + grid.run < tiles.count ? begin + grid.run : tiles.count;
      multiply_panel<Kernel>(packed, tiles, begin, end, m0, k, weight + panel * panel_bytes, panel * kPanel, col_scale,
                             out);
    });
  });
}

template <class Kernel>
void gemm(const GemmW8A8Int8& op, const Executor& executor) {
  multiply<Kernel>({op.codes, nullptr, op.row_scale, op.k, op.codes_stride, DType::i8}, op.m,
                   static_cast<const uint8_t*>(op.weight), op.col_scale, {op.y, op.n, op.y_stride, op.bias, op.y_dtype},
                   executor);
}
template <class Kernel>
void linear(const LinearW8A8Int8& op, const Executor& executor) {
  multiply<Kernel>({op.x, op.smooth, nullptr, op.k, op.x_stride, op.x_dtype}, op.m,
                   static_cast<const uint8_t*>(op.weight), op.col_scale, {op.y, op.n, op.y_stride, op.bias, op.x_dtype},
                   executor);
}

}  // namespace
}  // namespace pennyweight::cpu
