// SPDX-License-Identifier: Apache-2.0
// linear_panels.h: the linear layers whose sums run in float32 (W4A16, W8A8-FP), once for every instruction set
//
//   y[m,n] = sum_k x[m,k] * w[n,k], w decoded from panels (formats.h); scales per group inside the sum (W4A16 in
//   groups) or per output at its end (W4A16 per channel; FP8, after the row's scale); then bias, then one rounding.
//
// Words     unit: what one multiply-accumulate instruction consumes, 4 bytes of activation and 4 bytes per output: two
//           bf16 values of k for a pairwise dot product, one float32 for an FMA.  step: 4 bytes of codes per output,
//           256 bytes a panel.  block: a scale group, or 128 k where there are none.  tile: rows of x that share
//           registers.
// Shapes    x is packed [tile][unit][rows of the tile]; sums are kept per panel as c[row][64] float32 in L1 or L2
// Walk      a task is one panel (64 outputs) by up to kRowsPerTask rows; K is never split, so the sum of an output is
//           the same chain of instructions for any M, tile and number of threads, and has the same bits.
//
//           few rows: decode in registers         many rows: decode once, sweep
//             K ->  block   block                   K ->  superblock
//           N +--------+--------+                 N +------------------+   decoded to [unit][64] x 4 bytes (L2), then
//           | |>>>>>>>>|        |  every tile     | |     decoded      |   every tile passes over it with its 6 x 64
//          64 |>>>>>>>>|        |  passes over   64 |                  |   sums in registers; the next superblock's
//           v +--------+--------+  the block in   v +------------------+   codes are prefetched, spread over the tiles
//                                  L1
//           Which walk is better is the format's word: it depends on what decoding costs. Up to register_limit rows are
//           decoded in registers; more are decoded once, or, where the format never does, taken in blocks of that many.
// Policies  Isa: vectors of `lanes` outputs, mac_row, loads and stores, k of a superblock.  Format: how codes become
//           units.
// Numerics  |y - exact| <= (K + groups + 3) * 2^-24 * sum |x||w| + half an ulp of y's dtype
// Tried     on one core of a Zen 4 at 3.7 GHz, weights in cache, against its peak (236 GFLOP/s bf16, 118 float32):
//           superblocks of 128, 256, 512, 1024 k: within 2 %.  Explicit broadcasts instead of embedded ones: no gain
//           there; on an Ice Lake, which multiplies twice a cycle and loads no more than twice, they take M = 256 from
//           38 to 83 % of the float32 peak, and superblocks of 128 k of float32 (32 KB) from 83 to 85 %.
//           Two scale groups side by side at M = 1, for more independent sums: no gain warm, 45 % slower cold (two
//           streams).  Prefetch 0, 2, 4, 8, 16 KB ahead at M = 1, cold: 8 KB best or next to it in both formats. FP8 of
//           two rows and more to L2 instead of L1, (4096, 4096) cold, two threads: M = 4 558 -> 530 us, M = 8 957 ->
//           673, M = 16 1374 -> 1325; 4-bit codes lose by it, M = 4 369 -> 485. Four panels side by side, so that 16 KB
//           of a few rows of x come from L1 and not, per panel, from L2: 2 to 6 % slower at M = 4 and 8, both formats,
//           K = 14336 too.
#pragma once
#include <cstring>

#include "pennyweight/executor.h"
#include "pennyweight/linear.h"
#include "pennyweight/numerics.h"
#include "scratch.h"

#define PW_UNROLL _Pragma("GCC unroll 16")
#define PW_INLINE inline __attribute__((always_inline))

namespace pennyweight::cpu {
namespace {

constexpr int64_t kStepBytes = 4 * kPanel;
constexpr int64_t kBlockK = 128;       // k per block where scales are per output
constexpr int64_t kTilesPerTask = 64;  // with 6 rows each: sums of 96 KB
constexpr int64_t kRowsAtOnce = 1536;  // packed at a time, so that the workspace does not grow with M
constexpr int64_t kPrefetchBytes = 8192;
constexpr int kL1 = 3, kL2 = 2;         // where a prefetch goes, as __builtin_prefetch says it
constexpr int kPast = 0;                // to L1, and past the other caches
constexpr int64_t kSerialUnits = 8192;  // of x, packed before it pays to wake threads

// One call, whatever its format.
struct LinearJob {
  const uint8_t* weight;   // panels
  int64_t panel_bytes;     // from one panel to the next
  int64_t block_bytes;     // from one block to the next
  int64_t blocks, steps;   // per panel; per block
  int64_t total_steps;     // per panel (the last block may be short)
  const float* row_scale;  // (m,) or null
  const float* col_scale;  // (n,) or null
  const void* bias;
  void* y;
  int64_t m, n, y_stride;
  DType y_dtype;
};

// Rows of x cut into `count` tiles whose sizes differ by one at most.
struct Tiles {
  int64_t rows, count, units;
  int64_t first(int64_t t) const { return t * (rows / count) + (t < rows % count ? t : rows % count); }
  int64_t size(int64_t t) const { return rows / count + (t < rows % count ? 1 : 0); }
  // In dwords; 16 spare ones after each tile, since the packer stores whole vectors.
  int64_t offset(int64_t t) const { return first(t) * units + t * 16; }
};
static Tiles cut(int64_t rows, int64_t rows_per_tile, int64_t units) {
  return {rows, (rows + rows_per_tile - 1) / rows_per_tile, units};
}

// ---- decode in registers: `rows` rows by `width` vectors of outputs
// first: the first of these outputs within the panel. ahead: how far the codes are prefetched, in bytes. c: the sums,
// rows of 64. Scales are read after the codes, as they lie in memory (before them,
// prefetched apart: 13 % slower at M = 1, cold). One row's codes are read once: they go past L2, which keeps what runs
// between two calls (Zen 4: a decoder block's Python, norms and attention 210 -> 170 us, the calls themselves the same;
// for several rows 10 % slower at M = 4 of (4096, 4096), 5 % faster at M = 8).
template <class Isa, class Format, bool grouped, int rows, int width>
static PW_INLINE void multiply_codes(const Format& format, const uint8_t* block, int first, int64_t steps,
                                     int64_t ahead, const uint32_t* x, const uint32_t* offset, float* c) {
  constexpr int units = Format::units;
  const uint8_t* codes = block + first * 4;
  offset += first;
  c += first;
  typename Isa::Vec acc[rows][width];
  PW_UNROLL for (int r = 0; r < rows; ++r) PW_UNROLL for (int i = 0; i < width; ++i) acc[r][i] =
      grouped ? Isa::zero() : Isa::load(c + r * kPanel + i * Isa::lanes);
  for (int64_t s = 0; s < steps; ++s) {
    typename Format::Codes v[width];
    PW_UNROLL for (int i = 0; i < width; ++i) {
      v[i] = format.load(codes + i * Isa::lanes * 4);
      __builtin_prefetch(codes + i * Isa::lanes * 4 + ahead, 0, rows > 1 ? Format::locality : kPast);
    }
    PW_UNROLL for (int u = 0; u < units; ++u) {
      typename Isa::Bits w[width];
      PW_UNROLL for (int i = 0; i < width; ++i) w[i] = format.unit(v[i], u, offset + i * Isa::lanes);
      PW_UNROLL for (int r = 0; r < rows; ++r) Isa::template mac_row<width>(acc[r], w, x + u * rows + r);
    }
    x += units * rows;
    codes += kStepBytes;
  }
  PW_UNROLL for (int r = 0; r < rows; ++r) PW_UNROLL for (int i = 0; i < width; ++i) {
    float* sum = c + r * kPanel + i * Isa::lanes;
    if constexpr (grouped)
      Isa::store(sum, Isa::fma(acc[r][i], format.scale(block, first + i * Isa::lanes), Isa::load(sum)));
    else
      Isa::store(sum, acc[r][i]);
  }
}

// The whole width of a panel: as many vectors side by side as registers allow.
template <class Isa, class Format, bool grouped, int rows>
static void multiply_block(const Format& format, const uint8_t* block, int64_t steps, int64_t ahead, const uint32_t* x,
                           const uint32_t* offset, float* c) {
  constexpr int width = Isa::register_width(rows);
  for (int o = 0; o < kPanel; o += width * Isa::lanes)
    multiply_codes<Isa, Format, grouped, rows, width>(format, block, o, steps, ahead, x, offset, c);
}

template <class Format>
using MultiplyBlock = void (*)(const Format&, const uint8_t*, int64_t, int64_t, const uint32_t*, const uint32_t*,
                               float*);

// The instance for a tile of `wanted` rows.
template <class Isa, class Format, bool grouped, int rows = Isa::register_rows>
static MultiplyBlock<Format> find_multiply_block(int64_t wanted) {
  if constexpr (rows == 0) {
    return nullptr;
  } else {
    if (wanted == rows) return multiply_block<Isa, Format, grouped, rows>;
    return find_multiply_block<Isa, Format, grouped, rows - 1>(wanted);
  }
}

template <class Isa, class Format, bool grouped>
static void panel_in_registers(const LinearJob& job, const Format& format, const Tiles& tiles, const uint32_t* x,
                               const uint8_t* panel, float* c) {
  alignas(64) uint32_t offset[kPanel];
  MultiplyBlock<Format> multiply[Format::register_limit / Isa::register_rows] = {};
  for (int64_t t = 0; t < tiles.count; ++t) multiply[t] = find_multiply_block<Isa, Format, grouped>(tiles.size(t));
  const int64_t ahead = (kPrefetchBytes + job.block_bytes - 1) / job.block_bytes * job.block_bytes;
  if constexpr (!grouped) format.offsets(panel, offset);
  for (int64_t b = 0; b < job.blocks; ++b) {
    const uint8_t* codes = panel + b * job.block_bytes;
    const int64_t done = b * job.steps, left = job.total_steps - done;
    if constexpr (grouped) format.offsets(codes, offset);
    for (int64_t t = 0; t < tiles.count; ++t)
      multiply[t](format, codes, left < job.steps ? left : job.steps, t == 0 ? ahead : 0,
                  x + tiles.offset(t) + done * Format::units * tiles.size(t), offset, c + tiles.first(t) * kPanel);
  }
}

// ---- decode once: w [unit][64], `rows` rows by the whole panel
template <class Isa, bool grouped, int rows>
static void multiply_units(const uint32_t* x, const uint32_t* w, int64_t units, const float* scale, float* c) {
  constexpr int width = Isa::tile_width;
  for (int o = 0; o < kPanel; o += width * Isa::lanes) {
    typename Isa::Vec acc[rows][width];
    PW_UNROLL for (int r = 0; r < rows; ++r) PW_UNROLL for (int i = 0; i < width; ++i) acc[r][i] =
        grouped ? Isa::zero() : Isa::load(c + r * kPanel + o + i * Isa::lanes);
    const uint32_t *xu = x, *wu = w + o;
    for (int64_t u = 0; u < units; ++u) {
      typename Isa::Bits b[width];
      PW_UNROLL for (int i = 0; i < width; ++i) b[i] = Isa::load_bits(wu + i * Isa::lanes);
      PW_UNROLL for (int r = 0; r < rows; ++r) Isa::template mac_row<width>(acc[r], b, xu + r);
      xu += rows;
      wu += kPanel;
    }
    PW_UNROLL for (int r = 0; r < rows; ++r) PW_UNROLL for (int i = 0; i < width; ++i) {
      float* sum = c + r * kPanel + o + i * Isa::lanes;
      Isa::store(sum, grouped ? Isa::fma(acc[r][i], Isa::load(scale + o + i * Isa::lanes), Isa::load(sum)) : acc[r][i]);
    }
  }
}

using MultiplyUnits = void (*)(const uint32_t*, const uint32_t*, int64_t, const float*, float*);

template <class Isa, bool grouped, int rows = Isa::tile_rows>
static MultiplyUnits find_multiply_units(int64_t wanted) {
  if constexpr (rows == 0) {
    return nullptr;
  } else {
    if (wanted == rows) return multiply_units<Isa, grouped, rows>;
    return find_multiply_units<Isa, grouped, rows - 1>(wanted);
  }
}

// A block's scales as float32.
template <class Isa, class Format>
static void write_scales(const Format& format, const uint8_t* block, float* scale) {
  for (int o = 0; o < kPanel; o += Isa::lanes) Isa::store(scale + o, format.scale(block, o));
}

template <class Isa, class Format>
static void decode_steps(const Format& format, const uint8_t* codes, int64_t steps, const uint32_t* offset,
                         uint32_t* w) {
  for (int64_t s = 0; s < steps; ++s) {
    PW_UNROLL for (int o = 0; o < kPanel; o += Isa::lanes) {
      const typename Format::Codes v = format.load(codes + o * 4);
      PW_UNROLL for (int u = 0; u < Format::units; ++u)
          Isa::store_bits(w + u * kPanel + o, format.unit(v, u, offset + o));
    }
    codes += kStepBytes;
    w += Format::units * kPanel;
  }
}

template <class Isa, class Format, bool grouped>
static void panel_decoded(const LinearJob& job, const Format& format, const Tiles& tiles, int64_t first, int64_t last,
                          const uint32_t* x, const uint8_t* panel, float* c) {
  constexpr int64_t units = Format::units;
  const int64_t block_units = job.steps * units;
  const int64_t many = Isa::superblock_k / (block_units * Isa::unit_k), at_once = many > 0 ? many : 1;  // blocks
  uint32_t* w = static_cast<uint32_t*>(scratch(Slot::panel, at_once * (block_units + 1) * kPanel * 4));
  float* scale = reinterpret_cast<float*>(w + at_once * block_units * kPanel);  // [block][64]
  alignas(64) uint32_t offset[kPanel];
  if constexpr (!grouped) format.offsets(panel, offset);
  for (int64_t b0 = 0; b0 < job.blocks; b0 += at_once) {
    const int64_t b1 = b0 + at_once < job.blocks ? b0 + at_once : job.blocks;
    const int64_t done = b0 * job.steps, end = b1 * job.steps < job.total_steps ? b1 * job.steps : job.total_steps;
    if constexpr (grouped) {
      for (int64_t b = b0; b < b1; ++b) {
        const uint8_t* codes = panel + b * job.block_bytes;
        write_scales<Isa>(format, codes, scale + (b - b0) * kPanel);
        format.offsets(codes, offset);
        decode_steps<Isa>(format, codes, job.steps, offset, w + (b - b0) * block_units * kPanel);
      }
    } else {
      decode_steps<Isa>(format, panel + done * kStepBytes, end - done, offset, w);
    }
    const uint8_t* next = panel + b1 * job.block_bytes;
    const int64_t lines = (b1 - b0) * job.block_bytes / 64 / (last - first) + 1;
    for (int64_t t = first; t < last; ++t) {
      for (int64_t i = 0; i < lines; ++i, next += 64) __builtin_prefetch(next, 0, 2);
      const int64_t rows = tiles.size(t);
      const uint32_t* xt = x + tiles.offset(t) + done * units * rows;
      float* ct = c + (tiles.first(t) - tiles.first(first)) * kPanel;
      const MultiplyUnits multiply = find_multiply_units<Isa, grouped>(rows);
      if constexpr (grouped) {
        for (int64_t b = 0; b < b1 - b0; ++b)
          multiply(xt + b * block_units * rows, w + b * block_units * kPanel, block_units, scale + b * kPanel, ct);
      } else {
        multiply(xt, w, (end - done) * units, scale, ct);
      }
    }
  }
}

// ---- sums to y: ((sum * row_scale) * column scale) + bias, one rounding
template <class Isa, class Format, bool grouped>
static void write_panel(const LinearJob& job, const Format& format, const uint8_t* panel, int64_t row0, int64_t rows,
                        int64_t n0, float* c) {
  alignas(64) float column[kPanel] = {0}, bias[kPanel] = {0};
  const int64_t columns = job.n - n0 < kPanel ? job.n - n0 : kPanel;
  if constexpr (Format::channel_scale && !grouped) write_scales<Isa>(format, panel, column);
  for (int64_t i = 0; i < columns; ++i) {
    if (job.col_scale) column[i] = job.col_scale[n0 + i];
    if (job.bias) bias[i] = load_f32(job.bias, job.y_dtype, n0 + i);
  }
  for (int64_t r = 0; r < rows; ++r, c += kPanel) {
    const int64_t at = (row0 + r) * job.y_stride + n0;
    const float row_scale = job.row_scale ? job.row_scale[row0 + r] : 1.0f;
    for (int o = 0; o < kPanel; o += Isa::lanes) {
      typename Isa::Vec v = Isa::load(c + o);
      if (job.row_scale) v = Isa::mul(v, Isa::set1(row_scale));
      if constexpr (!grouped) v = Isa::mul(v, Isa::load(column + o));
      if (job.bias) v = Isa::add(v, Isa::load(bias + o));
      if (o + Isa::lanes <= columns) {
        Isa::store_as(job.y, job.y_dtype, at + o, v);
      } else if (o < columns) {
        Isa::store(c + o, v);
        for (int64_t i = o; i < columns; ++i) store_f32(job.y, job.y_dtype, at + i, c[i]);
      }
    }
  }
}

// ---- x to [tile][unit][rows]; row(r, out) writes the units of row r, zeros past K
// Many rows: a task makes the rows of its tile and interleaves them while they are in cache. Few rows are few tiles: a
// task makes one row, so that all threads share what quantization costs, and the tiles follow.
template <class Isa, class Row>
static void pack_rows(const Tiles& tiles, bool few, const Row& row, uint32_t* x, const Executor& executor) {
  if (tiles.rows == 1) return row(0, x);
  const int64_t stride = round_up(tiles.units, 16);
  const auto staging = [&](int64_t rows) { return static_cast<uint32_t*>(scratch(Slot::panel, rows * stride * 4)); };
  if (few) {
    uint32_t* stage = staging(tiles.rows);
    parallel_for(executor, tiles.rows, [&](int64_t r) { row(r, stage + r * stride); });
    parallel_for(executor, tiles.count, [&](int64_t t) {
      Isa::interleave(stage + tiles.first(t) * stride, stride, tiles.size(t), tiles.units, x + tiles.offset(t));
    });
  } else {
    parallel_for(executor, tiles.count, [&](int64_t t) {
      uint32_t* stage = staging(tiles.size(t));
      for (int64_t r = 0; r < tiles.size(t); ++r) row(tiles.first(t) + r, stage + r * stride);
      Isa::interleave(stage, stride, tiles.size(t), tiles.units, x + tiles.offset(t));
    });
  }
}

// Elements [from, from + k) of x as float32, zeros up to `units`.
template <class Isa>
static void widen_row(const void* x, DType dtype, int64_t from, int64_t k, float* out, int64_t units) {
  int64_t i = 0;
  for (; i + Isa::lanes <= k; i += Isa::lanes) Isa::store(out + i, Isa::load_as(x, dtype, from + i));
  for (; i < k; ++i) out[i] = load_f32(x, dtype, from + i);
  for (; i < units; ++i) out[i] = 0.0f;
}

// The rows from row0 on: pack them, then one task per panel and kTilesPerTask tiles.
template <class Isa, class Format, bool grouped, class Row>
static void run_rows(const LinearJob& job, const Format& format, const Row& row, int64_t row0, int64_t rows,
                     const Executor& executor) {
  const bool few = rows <= Format::register_limit;
  const Tiles tiles = cut(rows, few ? Isa::register_rows : Isa::tile_rows, job.total_steps * Format::units);
  uint32_t* x = static_cast<uint32_t*>(scratch(Slot::activations, tiles.offset(tiles.count) * 4));
  pack_rows<Isa>(
      tiles, few, [&](int64_t r, uint32_t* out) { row(row0 + r, out); }, x,
      rows * tiles.units <= kSerialUnits ? Executor{} : executor);

  const int64_t panels = (job.n + kPanel - 1) / kPanel;
  const int64_t slices = few ? 1 : (tiles.count + kTilesPerTask - 1) / kTilesPerTask;
  parallel_for(executor, panels * slices, [&](int64_t task) {
    const int64_t p = task % panels, first = task / panels * kTilesPerTask;
    const int64_t last = few || first + kTilesPerTask > tiles.count ? tiles.count : first + kTilesPerTask;
    const int64_t from = tiles.first(first), count = tiles.first(last) - from;
    const uint8_t* panel = job.weight + p * job.panel_bytes;
    float* c = static_cast<float*>(scratch(Slot::tile, count * kPanel * 4));
    std::memset(c, 0, count * kPanel * 4);
    if (few)
      panel_in_registers<Isa, Format, grouped>(job, format, tiles, x, panel, c);
    else if constexpr (Format::decodes_once)
      panel_decoded<Isa, Format, grouped>(job, format, tiles, first, last, x, panel, c);
    write_panel<Isa, Format, grouped>(job, format, panel, row0 + from, count, p * kPanel, c);
  });
}

template <class Isa, class Format, bool grouped, class Row>
static void run_linear(const LinearJob& job, const Format& format, const Row& row, const Executor& executor) {
  constexpr int64_t at_once = Format::decodes_once ? kRowsAtOnce : Format::register_limit;
  const int64_t blocks = (job.m + at_once - 1) / at_once;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = job.m * b / blocks, last = job.m * (b + 1) / blocks;
    run_rows<Isa, Format, grouped>(job, format, row, first, last - first, executor);
  }
}

// ---- what an op's struct says about the job
static LinearJob int4_job(const LinearW4A16& op) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0};
  const bool grouped = op.group_size != op.k;
  LinearJob job{};
  job.weight = static_cast<const uint8_t*>(op.weight);
  job.panel_bytes = panel.panel_bytes();
  job.steps = grouped ? panel.steps() : kBlockK / 8;
  job.total_steps = panel.steps() * panel.groups();
  job.blocks = (job.total_steps + job.steps - 1) / job.steps;
  job.block_bytes = grouped ? panel.group_bytes() : job.steps * kStepBytes;
  job.bias = op.bias;
  job.y = op.y;
  job.m = op.m;
  job.n = op.n;
  job.y_stride = op.y_stride;
  job.y_dtype = op.x_dtype;
  return job;
}

template <class Op>
static LinearJob fp8_job(const Op& op, DType y_dtype, const float* row_scale) {
  LinearJob job{};
  job.weight = static_cast<const uint8_t*>(op.weight);
  job.panel_bytes = fp8_panel_bytes(kPanel, op.k);
  job.steps = kBlockK / 4;
  job.total_steps = (op.k + 3) / 4;
  job.blocks = (job.total_steps + job.steps - 1) / job.steps;
  job.block_bytes = job.steps * kStepBytes;
  job.row_scale = row_scale;
  job.col_scale = op.col_scale;
  job.bias = op.bias;
  job.y = op.y;
  job.m = op.m;
  job.n = op.n;
  job.y_stride = op.y_stride;
  job.y_dtype = y_dtype;
  return job;
}

}  // namespace
}  // namespace pennyweight::cpu
