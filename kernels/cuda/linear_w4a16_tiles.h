// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_tiles.h: the tiles that linear_w4a16_sm80.cuh is compiled for, one per .cu, and what they are given.
#pragma once
#include "pennyweight/linear.h"
#include "tile/gemm.h"
#include "tile/halves.h"

namespace pennyweight::cuda {

struct GemmW4A16 : Gemm {
  int64_t panel_bytes, group_bytes, scale_offset;  // as Int4Panel has them
  int64_t tile_bytes;                              // from one k tile of a panel to the next
  bool grouped;                                    // in groups of 32, 64 or 128; else one group, the channel
  int group_shift;                                 // a group has 1 << group_shift steps of 8 inputs: 2, 3, 4
  int tail_bytes;                                  // scales and zero points of a group and panel
  DType scale_dtype;
  bool zero_points;

  PW_HD int tail_groups() const { return grouped ? 16 >> group_shift : 0; }  // of a tile and panel
};

template <Half half, int BM, int warps_m, int warps_n, int stages, int blocks_per_sm>
struct W4Tile : HalfTile<half, BM, 128, warps_m, warps_n, stages, blocks_per_sm> {
  using Base = HalfTile<half, BM, 128, warps_m, warps_n, stages, blocks_per_sm>;
  static constexpr int panels = Base::BN / 64, steps = Base::BK / 8;
  static constexpr int code_bytes = Base::BN * Base::BK / 2;
  static_assert(Base::BN % 64 == 0);

  static PW_HD int stage_bytes(const GemmW4A16& p) {
    return Base::x_bytes + code_bytes + panels * p.tail_groups() * p.tail_bytes;
  }
  static int shared_bytes(const GemmW4A16& p) { return stages * stage_bytes(p); }
};

// In KB of shared memory, with bf16 scales of groups of 128; at most 99, with float32 scales of groups of 32.
template <Half half>
using W4Tile8 = W4Tile<half, 8, 1, 8, 4, 2>;  // 75
template <Half half>
using W4Tile16 = W4Tile<half, 16, 1, 8, 3, 2>;  // 62
template <Half half>
using W4Tile32 = W4Tile<half, 32, 1, 8, 3, 1>;  // 74
template <Half half>
using W4Tile64 = W4Tile<half, 64, 2, 4, 3, 1>;  // 73
template <Half half>
using W4Tile128 = W4Tile<half, 128, 2, 4, 2, 1>;  // 81

template <class T>
int launch_tile(const GemmW4A16& p, void* stream);  // a cudaError_t

// Plan::tile: 0 .. 4, as above.
constexpr int kW4Tiles = 5;
Plan plan_w4(const LinearW4A16& op, const Card& card);
int run_w4(const LinearW4A16& op, const Plan& plan, const CudaCall& call);

}  // namespace pennyweight::cuda
