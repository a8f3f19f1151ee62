// SPDX-License-Identifier: Apache-2.0
// linear_w4a8_int8.h: y = x . dequantize(weight)^T with 4-bit weights and INT8 activations, the walk that both
// instruction sets share; linear_w4a8_int8_{avx2,avx512vnni}.cpp bring the tile.
//
//   acc[m,n,g] = sum over k in group g of x[m,k] * (u[n,k] - 8 - z[n,g])     exact int32; u = stored nibble
//   total = fma((float)acc, scale[n,g], total), g in order;   y[m,n] = total * row_scale[m] + bias[n], rounded once
//
// Accumulators of a group start from -(8 + z) * sum x, so only unsigned nibbles are multiplied.
//
// Shapes    x (M,K) floats; weight INT4_PANEL of (N,K), the one of W4A16; y (M,N)
// Nibbles   a dword of the panel holds k 0 .. 7 of an output so that two masks give bytes for two dot products:
//
//             bits 31           16 15            0        v & 0x0f0f0f0f         k 0 4 1 5  (from the low byte up)
//                  k7 k5 k3 k1     k6 k4 k2 k0            v >> 4 & 0x0f0f0f0f    k 2 6 3 7
//
//           A row's codes are shuffled into that order once, when they are interleaved.
// Walk      as linear_w8a8_int8.h, with blocks of whole groups; totals wait as float32, 256 bytes per row. Nibbles are
//           decoded in registers by every row tile: three cheap operations per 8 to 48 dot products, on other ports. A
//           narrow tile (M = 7 to 16, AVX-512) takes blocks of about 16 KB.
// Numerics  bit for bit the plain loops: integer sums are exact, float operations are theirs in their order.
// Reference kernels/reference/linear.cpp
#pragma once
#include "int8_rows.h"
#include "pennyweight/device.h"
#include "pennyweight/linear.h"

namespace pennyweight::cpu {
namespace {

constexpr int64_t kStepBytes = 4 * kPanel;  // a step is 8 k of 64 outputs: two dwords of a row
constexpr int64_t kStreamAhead = 4096;
constexpr int64_t kNarrowBytes = 16 << 10;

// What a tile needs for a run of groups.
struct TileArgs {
  const Int4Panel* panel;
  const int32_t* rows;    // packed dwords of the run: per step two of each row
  const uint8_t* weight;  // the run's first group
  int64_t groups;
  const int32_t* minus_sum;  // - sum of a group's codes, of the run's first group; rows `sum_stride` apart
  int64_t sum_stride;
  float* total;            // [row][64]
  const char* prefetch;    // `lines` cache lines of it per step ...
  int64_t prefetch_group;  // ... and so far on at the next group
  int lines;               // 0, 1, 2 or 4
};

struct PackedGroups {
  int32_t* rows;
  int32_t* minus_sum;  // (m, groups)
  float* scale;        // (m,)
};

inline void group_scales(const TileArgs& args, const uint8_t* group, F32x16 (&scale)[4]) {
  const uint8_t* scales = group + args.panel->scale_offset();
  with_dtype(args.panel->scale_dtype, [&](auto tag) {
    constexpr DType dtype = decltype(tag)::value;
    for (int j = 0; j < 4; ++j) scale[j] = load<dtype>(scales + 16 * j * dtype_bytes(dtype));
  });
}

// The scales and zero points of a group lie behind its codes, where no step reaches.
inline void prefetch_tail(const TileArgs& args, const char* prefetch) {
  for (int64_t i = args.panel->scale_offset(); i < args.panel->group_bytes(); i += 64)
    _mm_prefetch(prefetch + i, _MM_HINT_T0);
}

// Groups per block: from L2, with room for the next block on its way. (16 KB, from L1, loses 2 to 7 % with vpdpbusd and
// gains nothing with AVX2.)
inline int64_t block_groups(const Int4Panel& panel, int64_t bytes) {
  const int64_t block = bytes / panel.group_bytes();
  return block < 1 ? 1 : block > panel.groups() ? panel.groups() : block;
}

inline void store_totals(const Output& out, const float* total, const float* row_scale, int64_t m, int rows, int64_t n0,
                         const float* bias) {
  for (int r = 0; r < rows; ++r, total += kPanel) {
    const F32x16 scale = splat(row_scale[r]);
    store_row(out, m + r, n0, bias, [&](int64_t j) { return load_f32(total + 16 * j) * scale; });
  }
}

// One task: row tiles [begin, end) of the block that starts at row m0, times one panel.
template <class Kernel>
void multiply_panel(const PackedGroups& packed, const RowTiles& tiles, int64_t begin, int64_t end, int64_t m0,
                    const Int4Panel& panel, const uint8_t* weight, int64_t n0, const Output& out) {
  alignas(64) float bias[kPanel];
  panel_floats(out.bias, out.dtype, n0, out.n, bias);
  const int64_t count = end - begin, group_steps = 2 * panel.steps();
  const bool stream = count == 1 && tiles.rows(begin) <= Kernel::kStreamRows;
  const int64_t block =
      stream ? panel.groups() : block_groups(panel, tiles.narrow ? kNarrowBytes : device().l2_bytes / 8);
  const int64_t row0 = tiles.first(begin), rows = tiles.first(end - 1) + tiles.rows(end - 1) - row0;
  float* totals = static_cast<float*>(scratch(Slot::tile, rows * kPanel * 4));
  __builtin_memset(totals, 0, static_cast<size_t>(rows * kPanel * 4));
  const int lines = count >= 4 ? 1 : count >= 2 ? 2 : 4;
  for (int64_t g = 0; g < panel.groups(); g += block) {
    const int64_t groups = g + block < panel.groups() ? block : panel.groups() - g;
    const uint8_t* first = weight + g * panel.group_bytes();
    const char* next = reinterpret_cast<const char*>(first) + (stream ? kStreamAhead : groups * panel.group_bytes());
    const int64_t per_group = stream || tiles.narrow ? panel.group_bytes() : panel.steps() * lines * 64;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = tiles.first(t), share = (t - begin) * groups * per_group;
      const int height = tiles.rows(t);
      float* total = totals + (row - row0) * kPanel;
      const int64_t per_step = tiles.narrow ? kNarrowRows : height;
      const TileArgs args{
          &panel,
          packed.rows + packed_offset(tiles, t, group_steps * panel.groups()) + g * group_steps * per_step,
          first,
          groups,
          packed.minus_sum + row * panel.groups() + g,
          panel.groups(),
          total,
          next + share,
          per_group,
          share < groups * panel.group_bytes() ? lines : 0};
      multiply_tile<Kernel>(tiles, height, args);
      if (g + groups == panel.groups()) store_totals(out, total, packed.scale + row, m0 + row, height, n0, bias);
    }
  }
}

template <class Kernel>
void multiply(const LinearW4A8Int8& op, const Executor& executor) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0};
  const Activations a{op.x, op.smooth, nullptr, op.k, op.x_stride, op.x_dtype};
  const Output out{op.y, op.n, op.y_stride, op.bias, op.x_dtype};
  const int64_t k = op.k, groups = panel.groups(), steps = 2 * panel.steps() * groups;
  const uint8_t* weight = static_cast<const uint8_t*>(op.weight);
  for_each_row_block(op.m, [&](int64_t m0, int64_t m1) {
    const RowTiles tiles(m1 - m0, Kernel::kRows, Kernel::kHasNarrow);
    const PackedGroups packed{static_cast<int32_t*>(scratch(Slot::activations, packed_bytes(tiles, steps))),
                              static_cast<int32_t*>(scratch(Slot::sums, tiles.m * groups * 4)),
                              static_cast<float*>(scratch(Slot::scales, tiles.m * 4))};
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    const auto make = [&](int64_t row, int8_t* codes) {
      packed.scale[row] = read_row(a, m0 + row, codes, Kernel::quantize_row);
      for (int64_t g = 0; g < groups; ++g)
        packed.minus_sum[row * groups + g] = -sum_codes(codes + g * panel.group_size, round_up(panel.group_size, 16));
    };
    if (tiles.narrow)
      pack_narrow(executor, tiles, k, steps, order, packed.rows, make);
    else
      for_each_tile(executor, tiles, k, [&](int64_t t) {
        const int rows = tiles.rows(t);
        const CodeRows codes(k, rows);
        for (int r = 0; r < rows; ++r) make(tiles.first(t) + r, codes.row(r));
        interleave(codes, rows, steps, order, packed.rows + packed_offset(tiles, t, steps));
      });
    const TaskGrid grid(op.n, tiles.count);
    parallel_for(executor, grid.tasks(), [&](int64_t task) {
      const int64_t n = task / grid.runs(), begin = task % grid.runs() * grid.run;
      const int64_t end = begin + grid.run < tiles.count ? begin + grid.run : tiles.count;
      multiply_panel<Kernel>(packed, tiles, begin, end, m0, panel, weight + n * panel.panel_bytes(), n * kPanel, out);
    });
  });
}

}  // namespace
}  // namespace pennyweight::cpu
