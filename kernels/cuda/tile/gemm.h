// SPDX-License-Identifier: Apache-2.0
// gemm.h: what every GEMM kernel is given, and how a problem is cut: which tile, into how many parts of K. On the host.
#pragma once
#include "pennyweight/cuda.h"
#include "tile/output.h"
#include "tile/walk.h"

namespace pennyweight::cuda {

struct Gemm {
  const void* x;
  const void* weight;
  int64_t m, n, k;
  int64_t x_stride, weight_stride;  // from row to row, in elements
  Walk walk;
  Epilogue epilogue;
  void* partial;  // (splits, m, partial_stride) sums of 4 bytes where K is split, else null
  int64_t partial_stride;
};

// A kernel's tile, and what of it fits a card.
struct Tile {
  int bm, bn, bk, blocks_per_sm;
  int64_t shared_bytes;
};

struct Plan {
  int tile, splits;
};

constexpr int64_t kMostRowsOfSums = 65535;  // a launch of the second pass has a row of blocks for each

template <class Op>
bool walk_of(const Op& op, const Tile& tile, Walk* walk) {
  return make_walk(op.m, op.n, op.k, tile.bm, tile.bn, tile.bk, walk);
}

// Blocks of a tile that the card runs at once; an SM has 1 KB of shared memory more than a block may have, and keeps 1
// KB of each block.
inline int64_t slots_of(const Tile& tile, const Card& card) {
  const int64_t fit = (card.shared_bytes + 1024) / (tile.shared_bytes + 1024);
  return card.multiprocessors * (fit < tile.blocks_per_sm ? fit : tile.blocks_per_sm);
}

template <class Op>
int64_t waves(const Op& op, const Tile& tile, const Card& card) {
  Walk walk;
  const int64_t slots = slots_of(tile, card);
  if (!walk_of(op, tile, &walk) || slots == 0) return INT64_MAX / 4;
  return (walk.blocks() + slots - 1) / slots;
}

// Of `count` tiles of rising height: the lowest that takes all rows at once; of the two highest the one that is done
// sooner, a block of the lower one being done in some 3/5 of the other's time. Then splits of K that fill the card.
template <class Op>
Plan plan_of(const Op& op, const Tile* tiles, int count, const Card& card) {
  Plan plan{count - 1, 1};
  for (int tile = count - 2; tile >= 0; --tile)
    if (op.m <= tiles[tile].bm) plan.tile = tile;
  if (plan.tile == count - 1 && waves(op, tiles[count - 2], card) * 3 < waves(op, tiles[count - 1], card) * 5)
    plan.tile = count - 2;
  Walk walk;
  if (walk_of(op, tiles[plan.tile], &walk) && op.m <= kMostRowsOfSums)
    plan.splits = splits_for(walk, slots_of(tiles[plan.tile], card), 4);
  return plan;
}

template <class Op>
const char* why_not_cut(const Op& op, const Tile& tile, const Card& card) {
  if (op.k > 0x7fffffff) return "takes at most 2147483647 inputs";
  if (slots_of(tile, card) == 0) return "needs more shared memory than a block may have";
  Walk walk;
  return walk_of(op, tile, &walk) ? nullptr : "has more tiles than a launch takes";
}

template <class Op>
int64_t partial_bytes(const Op& op, const Plan& plan) {
  return plan.splits > 1 ? plan.splits * op.m * round_up(op.n, 8) * 4 : 0;
}

// Everything but the operands' places, from an op's sizes and outputs.
template <class Op>
Gemm gemm_of(const Op& op, const Tile& tile, const Plan& plan, DType y_dtype, void* workspace) {
  Gemm p{};
  p.weight = op.weight;
  p.m = op.m;
  p.n = op.n;
  p.k = op.k;
  walk_of(op, tile, &p.walk);
  p.walk.splits = plan.splits;
  p.epilogue.bias = op.bias;
  p.epilogue.y = {op.y, op.y_stride, y_dtype, aligned_for_vectors(op.y, op.y_stride)};
  p.partial_stride = round_up(op.n, 8);
  if (plan.splits > 1) p.partial = workspace;
  return p;
}

// The second pass, where K was split: adds the parts up in their order, then the epilogue. A cudaError_t.
int add_splits(const Gemm& p, bool floats, void* stream);

}  // namespace pennyweight::cuda
