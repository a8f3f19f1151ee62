// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_int8_sm80.cu: which tile and split of K a problem gets, and the second pass over split sums.
#include "gemm_w8a8_int8_epilogue.cuh"
#include "linear_sm80.h"
#include "ptx/copy.cuh"
#include "table.h"
#include "tile/aligned.h"

namespace pennyweight::cuda {
namespace {

// A block per row and kSumOutputs outputs: adds the parts up in their order, and does the epilogue.
constexpr int kSumThreads = 64, kSumOutputs = 8 * kSumThreads;

__global__ void __launch_bounds__(kSumThreads) gemm_w8a8_int8_sum(const GemmInt8 p) {
  const int64_t row = blockIdx.y, n = static_cast<int64_t>(blockIdx.x) * kSumOutputs + threadIdx.x * 8, left = p.n - n;
  if (left <= 0) return;
  uint32_t sum[8] = {};
#pragma unroll 4
  for (int split = 0; split < p.walk.splits; ++split) {
    const auto* part = p.partial + (split * p.m + row) * p.partial_stride + n;
    const uint4 low = ptx::load_once(part), high = ptx::load_once(part + 4);
    const uint32_t word[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += word[i];
  }
  int32_t total[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) total[i] = static_cast<int32_t>(sum[i]);
  store_int8(p.epilogue, row, n, left < 8 ? static_cast<int>(left) : 8, total);
}

struct Tile {
  int bm, bn, bk, shared_bytes;
  int (*launch)(const GemmInt8&, void*);
};
template <class T>
constexpr Tile tile_of() {
  return {T::BM, T::BN, T::BK, T::shared_bytes, launch_tile<T>};
}
const Tile tiles[kInt8Tiles] = {tile_of<Int8Tile16>(), tile_of<Int8Tile64>(), tile_of<Int8Tile128>(),
                                tile_of<Int8Tile128x5>()};
constexpr int kBlocksPerSm = 2;  // of every tile, where its shared memory fits twice
constexpr int64_t kMostRowsOfSums = 65535;

bool walk_of(const GemmW8A8Int8& op, int tile, Walk* walk) {
  return make_walk(op.m, op.n, op.k, tiles[tile].bm, tiles[tile].bn, tiles[tile].bk, walk);
}

int64_t waves(const GemmW8A8Int8& op, int tile, int64_t slots) {
  Walk walk;
  if (!walk_of(op, tile, &walk)) return INT64_MAX / 4;
  return (walk.blocks() + slots - 1) / slots;
}

}  // namespace

Int8Plan plan_int8(const GemmW8A8Int8& op, const Card& card) {
  const int64_t slots = static_cast<int64_t>(card.multiprocessors) * kBlocksPerSm;
  const int large = card.shared_bytes >= 2 * Int8Tile128x5::shared_bytes ? 3 : 2;
  Int8Plan plan{large, 1};
  if (op.m <= Int8Tile16::BM)
    plan.tile = 0;
  else if (op.m <= Int8Tile64::BM || waves(op, 1, slots) * 3 < waves(op, large, slots) * 5)
    plan.tile = 1;  // a block of 64 rows takes some 3/5 of the time of one of 128
  Walk walk;
  if (walk_of(op, plan.tile, &walk) && op.m <= kMostRowsOfSums) plan.splits = splits_for(walk, slots, 4);
  return plan;
}

int64_t partial_bytes(const GemmW8A8Int8& op, const Int8Plan& plan) {
  return plan.splits > 1 ? plan.splits * op.m * round_up(op.n, 8) * 4 : 0;
}

int run_int8(const GemmW8A8Int8& op, const Int8Plan& plan, const CudaCall& call) {
  GemmInt8 p{};
  p.x = static_cast<const int8_t*>(op.codes);
  p.weight = static_cast<const uint8_t*>(op.weight);
  p.m = op.m;
  p.n = op.n;
  p.k = op.k;
  p.x_stride = op.codes_stride;
  walk_of(op, plan.tile, &p.walk);
  p.walk.splits = plan.splits;
  p.epilogue = {
      op.row_scale, op.col_scale, op.bias, {op.y, op.y_stride, op.y_dtype, aligned_for_vectors(op.y, op.y_stride)}};
  p.partial_stride = round_up(op.n, 8);
  if (plan.splits > 1) p.partial = static_cast<int32_t*>(call.workspace);
  const int error = tiles[plan.tile].launch(p, call.stream);
  if (error || plan.splits == 1) return error;
  const dim3 grid(static_cast<unsigned>((op.n + kSumOutputs - 1) / kSumOutputs), static_cast<unsigned>(op.m));
  return launch(gemm_w8a8_int8_sum, grid, dim3(kSumThreads), 0, call.stream, p);
}

const char* why_not_gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const Card& card) {
  if (card.compute < 80) return needs_sm80(card);
  if (!rows_aligned(op.codes, op.m, op.codes_stride, 1))
    return "needs rows of codes that begin at multiples of 16 bytes";
  if (!aligned(op.weight)) return "needs a weight that begins at a multiple of 16 bytes";
  Walk walk;
  return walk_of(op, plan_int8(op, card).tile, &walk) ? nullptr : "has more tiles than a launch takes";
}
int64_t workspace_gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const Card& card) {
  return partial_bytes(op, plan_int8(op, card));
}
int gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const CudaCall& call) {
  return run_int8(op, plan_int8(op, call.card), call);
}

}  // namespace pennyweight::cuda
