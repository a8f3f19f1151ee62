// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_tiles.h: the tiles that linear_w4a16_sm80.cuh is compiled for, one per .cu, and what they are given.
#pragma once
#include "pennyweight/cuda.h"
#include "pennyweight/linear.h"
#include "tile/output.h"
#include "tile/walk.h"

namespace pennyweight::cuda {

struct W4Epilogue {
  const void* bias;
  Output y;
};

struct GemmW4A16 {
  const uint16_t* x;
  const uint8_t* weight;
  int64_t m, n, k, x_stride;
  int64_t panel_bytes, group_bytes, scale_offset;  // as Int4Panel has them
  int64_t tile_bytes;                              // from one k tile of a panel to the next
  bool grouped;                                    // in groups of 32, 64 or 128; else one group, the channel
  int group_shift;                                 // a group has 1 << group_shift steps of 8 inputs: 2, 3, 4
  int tail_bytes;                                  // scales and zero points of a group and panel
  DType scale_dtype;
  bool zero_points;
  Walk walk;
  W4Epilogue epilogue;
  float* partial;  // (splits, m, partial_stride) where K is split, else null
  int64_t partial_stride;

  PW_HD int tail_groups() const { return grouped ? 16 >> group_shift : 0; }  // of a tile and panel
};

enum class Half { f16, bf16 };

// BM tokens, BN outputs.
template <Half half_, int BM_, int warps_m_, int warps_n_, int stages_, int blocks_per_sm_>
struct W4Tile {
  static constexpr Half half = half_;
  static constexpr int BM = BM_, warps_m = warps_m_, warps_n = warps_n_, stages = stages_;
  static constexpr int blocks_per_sm = blocks_per_sm_;
  static constexpr int BN = 32 * warps_n, BK = 128;
  static constexpr int threads = 32 * warps_m * warps_n;
  static constexpr int WM = BM / warps_m, tokens = WM / 8;  // of a warp; its mma tiles of 8
  static constexpr int panels = BN / 64, steps = BK / 8, blocks = BK / 32;
  static constexpr int x_chunks = BK / 8;  // of a row
  static constexpr int x_bytes = BM * BK * 2, code_bytes = BN * BK / 2;
  static_assert(BN % 64 == 0 && WM % 8 == 0 && stages >= 2);

  static PW_HD int stage_bytes(const GemmW4A16& p) {
    return x_bytes + code_bytes + panels * p.tail_groups() * p.tail_bytes;
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

// How a problem is cut. `tile`: 0 .. 4, as above.
struct W4Plan {
  int tile, splits;
};
constexpr int kW4Tiles = 5;
W4Plan plan_w4(const LinearW4A16& op, const Card& card);
int64_t partial_bytes(const LinearW4A16& op, const W4Plan& plan);
int run_w4(const LinearW4A16& op, const W4Plan& plan, const CudaCall& call);

}  // namespace pennyweight::cuda
