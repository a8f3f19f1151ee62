// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_sm80.cu: which tile and split of K a problem gets.
#include "gemm_w8a8_tiles.h"
#include "linear_sm80.h"
#include "table.h"
#include "tile/aligned.h"

namespace pennyweight::cuda {
namespace {

struct Instance {
  Tile tile;
  int (*launch)(const Gemm&, void*);
};
template <class T>
constexpr Instance instance_of() {
  return {{T::BM, T::BN, T::BK, T::blocks_per_sm, T::shared_bytes}, launch_tile<T>};
}
const Instance int8_instances[kInt8Tiles] = {instance_of<Int8Tile16>(), instance_of<Int8Tile64>(),
                                             instance_of<Int8Tile128>(), instance_of<Int8Tile128x5>()};
const Instance e4m3_instances[kE4m3Tiles] = {instance_of<E4m3Tile16>(), instance_of<E4m3Tile64>(),
                                             instance_of<E4m3Tile64Exact>(), instance_of<E4m3Tile128>(),
                                             instance_of<E4m3Tile128Exact>()};

const Instance& instance(Codes codes, int tile) {
  return codes == Codes::int8 ? int8_instances[tile] : e4m3_instances[tile];
}

// Three tiles of rising height to choose from.
struct Choice {
  int tiles[3];
};
Choice choice(Codes codes, const GemmW8A8& op, const Card& card) {
  if (codes == Codes::e4m3)  // sm_90 has the exact ones alone
    return op.fast_accum && card.compute != 90 ? Choice{{0, 1, 3}} : Choice{{0, 2, 4}};
  return {{0, 1, card.shared_bytes >= 2 * Int8Tile128x5::shared_bytes ? 3 : 2}};
}

const char* why_not_codes(Codes codes, const GemmW8A8& op, const Card& card) {
  if (!rows_aligned(op.codes, op.m, op.codes_stride, 1))
    return "needs rows of codes that begin at multiples of 16 bytes: where they lie together, a K that is one";
  if (!rows_near(op.m, op.codes_stride, 1)) return "needs rows that begin less than 4 GiB apart";
  if (!aligned(op.weight)) return "needs a weight that begins at a multiple of 16 bytes";
  return why_not_cut(op, instance(codes, plan_w8a8(codes, op, card).tile).tile, card);
}

}  // namespace

Plan plan_w8a8(Codes codes, const GemmW8A8& op, const Card& card) {
  const Choice chosen = choice(codes, op, card);
  Tile tiles[3];
  for (int i = 0; i < 3; ++i) tiles[i] = instance(codes, chosen.tiles[i]).tile;
  const Plan plan = plan_of(op, tiles, 3, card);
  return {chosen.tiles[plan.tile], plan.splits};
}

int run_w8a8(Codes codes, const GemmW8A8& op, const Plan& plan, const CudaCall& call) {
  const Instance& chosen = instance(codes, plan.tile);
  Gemm p = gemm_of(op, chosen.tile, plan, op.y_dtype, call.workspace);
  p.x = op.codes;
  p.x_stride = op.codes_stride;
  p.weight_stride = code_row_bytes(op.k);
  p.epilogue.row_scale = op.row_scale;
  p.epilogue.col_scale = op.col_scale;
  const int error = chosen.launch(p, call.stream);
  return error || plan.splits == 1 ? error : add_splits(p, codes == Codes::e4m3, call.stream);
}

const char* why_not_gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const Card& card) {
  const char* why = needs_sm80(card);
  return why ? why : why_not_codes(Codes::int8, op, card);
}
int64_t workspace_gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const Card& card) {
  return partial_bytes(op, plan_w8a8(Codes::int8, op, card));
}
int gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const CudaCall& call) {
  return run_w8a8(Codes::int8, op, plan_w8a8(Codes::int8, op, call.card), call);
}

const char* why_not_gemm_w8a8_fp8_sm89(const GemmW8A8Fp8& op, const Card& card) {
  if (card.compute < 89) return "needs compute capability 8.9 (Ada) or later, which multiply E4M3 codes";
  return why_not_codes(Codes::e4m3, op, card);
}
int64_t workspace_gemm_w8a8_fp8_sm89(const GemmW8A8Fp8& op, const Card& card) {
  return partial_bytes(op, plan_w8a8(Codes::e4m3, op, card));
}
int gemm_w8a8_fp8_sm89(const GemmW8A8Fp8& op, const CudaCall& call) {
  return run_w8a8(Codes::e4m3, op, plan_w8a8(Codes::e4m3, op, call.card), call);
}

}  // namespace pennyweight::cuda
