// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_sm80.cu: which tile and split of K a problem gets.
#include "linear_sm80.h"
#include "linear_w4a16_tiles.h"
#include "table.h"
#include "tile/aligned.h"

namespace pennyweight::cuda {
namespace {

struct Instance {
  int bm, bn, bk, blocks_per_sm;
  int (*shared_bytes)(const GemmW4A16&);
  int (*launch[2])(const GemmW4A16&, void*);  // f16, bf16
};
template <template <Half> class T>
constexpr Instance instance_of() {
  using F16 = T<Half::f16>;
  return {
      F16::BM, F16::BN, F16::BK, F16::blocks_per_sm, F16::shared_bytes, {launch_tile<F16>, launch_tile<T<Half::bf16>>}};
}
const Instance instances[kW4Tiles] = {instance_of<W4Tile8>(), instance_of<W4Tile16>(), instance_of<W4Tile32>(),
                                      instance_of<W4Tile64>(), instance_of<W4Tile128>()};

// What the layout of the weight says.
void set_layout(const LinearW4A16& op, GemmW4A16* p) {
  const Int4Panel panel{op.n, op.k, op.group_size, op.scale_dtype, op.zero_points != 0};
  p->panel_bytes = panel.panel_bytes();
  p->group_bytes = panel.group_bytes();
  p->scale_offset = panel.scale_offset();
  p->grouped = op.group_size == 32 || op.group_size == 64 || op.group_size == 128;
  p->group_shift = op.group_size == 128 ? 4 : op.group_size == 64 ? 3 : 2;
  p->tile_bytes = p->grouped ? 128 / op.group_size * p->group_bytes : 128 / 8 * (4 * kPanel);
  p->tail_bytes = static_cast<int>(panel.group_bytes() - panel.scale_offset());
  p->scale_dtype = op.scale_dtype;
  p->zero_points = op.zero_points != 0;
}

// A tile's shared memory depends on the groups.
Tile tile_of(const LinearW4A16& op, int tile) {
  const Instance& t = instances[tile];
  GemmW4A16 p{};
  set_layout(op, &p);
  return {t.bm, t.bn, t.bk, t.blocks_per_sm, t.shared_bytes(p)};
}

}  // namespace

Plan plan_w4(const LinearW4A16& op, const Card& card) {
  Tile tiles[kW4Tiles];
  for (int i = 0; i < kW4Tiles; ++i) tiles[i] = tile_of(op, i);
  return plan_of(op, tiles, kW4Tiles, card);
}

int run_w4(const LinearW4A16& op, const Plan& plan, const CudaCall& call) {
  GemmW4A16 p{};
  static_cast<Gemm&>(p) = gemm_of(op, tile_of(op, plan.tile), plan, op.x_dtype, call.workspace);
  set_layout(op, &p);
  p.x = op.x;
  p.x_stride = op.x_stride;
  const int error = instances[plan.tile].launch[op.x_dtype == DType::bf16](p, call.stream);
  return error || plan.splits == 1 ? error : add_splits(p, true, call.stream);
}

const char* why_not_linear_w4a16_sm80(const LinearW4A16& op, const Card& card) {
  if (card.compute < 80) return needs_sm80(card);
  if (op.x_dtype == DType::f32) return "takes float16 and bfloat16 activations";
  if (!rows_aligned(op.x, op.m, op.x_stride, 2)) return "needs rows of x that begin at multiples of 16 bytes";
  if (!rows_near(op.m, op.x_stride, 2)) return "needs rows that begin less than 4 GiB apart";
  if (!aligned(op.weight)) return "needs a weight that begins at a multiple of 16 bytes";
  return why_not_cut(op, tile_of(op, plan_w4(op, card).tile), card);
}
int64_t workspace_linear_w4a16_sm80(const LinearW4A16& op, const Card& card) {
  return partial_bytes(op, plan_w4(op, card));
}
int linear_w4a16_sm80(const LinearW4A16& op, const CudaCall& call) { return run_w4(op, plan_w4(op, call.card), call); }

}  // namespace pennyweight::cuda
