// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_sm80.cu: which tile and split of K a problem gets, and the second pass over split sums.
#include "linear_w4a16_epilogue.cuh"
#include "linear_sm80.h"
#include "ptx/copy.cuh"
#include "table.h"
#include "tile/aligned.h"

namespace pennyweight::cuda {
namespace {

// A block per row and kSumOutputs outputs: adds the parts up in their order, then bias and rounding.
constexpr int kSumThreads = 64, kSumOutputs = 8 * kSumThreads;

__global__ void __launch_bounds__(kSumThreads, 16) linear_w4a16_sum(const GemmW4A16 p) {
  const int64_t row = blockIdx.y, n = static_cast<int64_t>(blockIdx.x) * kSumOutputs + threadIdx.x * 8, left = p.n - n;
  if (left <= 0) return;
  float sum[8] = {};
#pragma unroll 2
  for (int split = 0; split < p.walk.splits; ++split) {
    const auto* part = p.partial + (split * p.m + row) * p.partial_stride + n;
    const uint4 low = ptx::load_once(part), high = ptx::load_once(part + 4);
    const uint32_t word[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += bits_f32(word[i]);
  }
  store_w4(p.epilogue, row, n, left < 8 ? static_cast<int>(left) : 8, sum);
}

struct Tile {
  int bm, bn, bk, blocks_per_sm;
  int (*shared_bytes)(const GemmW4A16&);
  int (*launch[2])(const GemmW4A16&, void*);  // f16, bf16
};
template <template <Half> class T>
constexpr Tile tile_of() {
  using F16 = T<Half::f16>;
  return {
      F16::BM, F16::BN, F16::BK, F16::blocks_per_sm, F16::shared_bytes, {launch_tile<F16>, launch_tile<T<Half::bf16>>}};
}
const Tile tiles[kW4Tiles] = {tile_of<W4Tile8>(), tile_of<W4Tile16>(), tile_of<W4Tile32>(), tile_of<W4Tile64>(),
                              tile_of<W4Tile128>()};
constexpr int64_t kMostRowsOfSums = 65535;

// Everything but the walk and the outputs.
GemmW4A16 layout_of(const LinearW4A16& op) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0};
  GemmW4A16 p{};
  p.x = static_cast<const uint16_t*>(op.x);
  p.weight = static_cast<const uint8_t*>(op.weight);
  p.m = op.m;
  p.n = op.n;
  p.k = op.k;
  p.x_stride = op.x_stride;
  p.panel_bytes = panel.panel_bytes();
  p.group_bytes = panel.group_bytes();
  p.scale_offset = panel.scale_offset();
  p.grouped = op.group_size == 32 || op.group_size == 64 || op.group_size == 128;
  p.group_shift = op.group_size == 128 ? 4 : op.group_size == 64 ? 3 : 2;
  p.tile_bytes = p.grouped ? 128 / op.group_size * p.group_bytes : 128 / 8 * (4 * kPanel);
  p.tail_bytes = static_cast<int>(panel.group_bytes() - panel.scale_offset());
  p.scale_dtype = op.scale_dtype;
  p.zero_points = op.zero_points != 0;
  return p;
}

bool walk_of(const LinearW4A16& op, int tile, Walk* walk) {
  return make_walk(op.m, op.n, op.k, tiles[tile].bm, tiles[tile].bn, tiles[tile].bk, walk);
}

// Blocks of a tile that the card runs at once; an SM has 1 KB of shared memory more than a block may have, and keeps 1
// KB of each block.
int64_t slots_of(const LinearW4A16& op, int tile, const Card& card) {
  const int64_t fit = (card.shared_bytes + 1024) / (tiles[tile].shared_bytes(layout_of(op)) + 1024);
  return card.multiprocessors * (fit < tiles[tile].blocks_per_sm ? fit : tiles[tile].blocks_per_sm);
}

int64_t waves(const LinearW4A16& op, int tile, const Card& card) {
  Walk walk;
  const int64_t slots = slots_of(op, tile, card);
  if (!walk_of(op, tile, &walk) || slots == 0) return INT64_MAX / 4;
  return (walk.blocks() + slots - 1) / slots;
}

}  // namespace

W4Plan plan_w4(const LinearW4A16& op, const Card& card) {
  W4Plan plan{kW4Tiles - 1, 1};
  for (int tile = kW4Tiles - 2; tile >= 0; --tile)
    if (op.m <= tiles[tile].bm) plan.tile = tile;
  // a block of 64 rows takes some 3/5 of the time of one of 128
  if (op.m > tiles[3].bm && waves(op, 3, card) * 3 < waves(op, 4, card) * 5) plan.tile = 3;
  Walk walk;
  if (walk_of(op, plan.tile, &walk) && op.m <= kMostRowsOfSums)
    plan.splits = splits_for(walk, slots_of(op, plan.tile, card), 4);
  return plan;
}

int64_t partial_bytes(const LinearW4A16& op, const W4Plan& plan) {
  return plan.splits > 1 ? plan.splits * op.m * round_up(op.n, 8) * 4 : 0;
}

int run_w4(const LinearW4A16& op, const W4Plan& plan, const CudaCall& call) {
  GemmW4A16 p = layout_of(op);
  walk_of(op, plan.tile, &p.walk);
  p.walk.splits = plan.splits;
  p.epilogue = {op.bias, {op.y, op.y_stride, op.x_dtype, aligned_for_vectors(op.y, op.y_stride)}};
  p.partial_stride = round_up(op.n, 8);
  if (plan.splits > 1) p.partial = static_cast<float*>(call.workspace);
  const int error = tiles[plan.tile].launch[op.x_dtype == DType::bf16](p, call.stream);
  if (error || plan.splits == 1) return error;
  const dim3 grid(static_cast<unsigned>((op.n + kSumOutputs - 1) / kSumOutputs), static_cast<unsigned>(op.m));
  return launch(linear_w4a16_sum, grid, dim3(kSumThreads), 0, call.stream, p);
}

const char* why_not_linear_w4a16_sm80(const LinearW4A16& op, const Card& card) {
  if (card.compute < 80) return needs_sm80(card);
  if (op.x_dtype == DType::f32) return "takes float16 and bfloat16 activations";
  if (!rows_aligned(op.x, op.m, op.x_stride, 2)) return "needs rows of x that begin at multiples of 16 bytes";
  if (!aligned(op.weight)) return "needs a weight that begins at a multiple of 16 bytes";
  Walk walk;
  const int tile = plan_w4(op, card).tile;
  if (slots_of(op, tile, card) == 0) return "needs more shared memory than a block may have";
  return walk_of(op, tile, &walk) ? nullptr : "has more tiles than a launch takes";
}
int64_t workspace_linear_w4a16_sm80(const LinearW4A16& op, const Card& card) {
  return partial_bytes(op, plan_w4(op, card));
}
int linear_w4a16_sm80(const LinearW4A16& op, const CudaCall& call) { return run_w4(op, plan_w4(op, call.card), call); }

}  // namespace pennyweight::cuda
