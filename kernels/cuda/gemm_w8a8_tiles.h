// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_tiles.h: the tiles that gemm_w8a8_sm80.cuh is compiled for, one per .cu.
#pragma once
#include "codes.h"
#include "pennyweight/linear.h"
#include "tile/gemm.h"

namespace pennyweight::cuda {

// `exact`: sums of float32 leave the tensor core's accumulators every kExactInputs inputs.
constexpr int kExactInputs = 128;

template <Codes codes_, bool exact_, int BM_, int BN_, int BK_, int warps_m_, int warps_n_, int stages_,
          int blocks_per_sm_>
struct W8Tile {
  static constexpr Codes codes = codes_;
  static constexpr bool exact = exact_;
  static constexpr int BM = BM_, BN = BN_, BK = BK_, warps_m = warps_m_, warps_n = warps_n_, stages = stages_;
  static constexpr int blocks_per_sm = blocks_per_sm_;
  static constexpr int threads = 32 * warps_m * warps_n;
  static constexpr int WM = BM / warps_m, WN = BN / warps_n;  // of a warp
  static constexpr int rows = WM / 16, columns = WN / 8;      // its mma tiles
  static constexpr int chunks = BK / 16;                      // of a row, of x as of the weight
  static constexpr int x_bytes = BM * BK, stage_bytes = x_bytes + BN * BK;
  static constexpr int shared_bytes = stages * stage_bytes;
  static_assert(WM % 16 == 0 && WN % 32 == 0 && stages >= 2 && kExactInputs % BK == 0);
};

using Int8Tile16 = W8Tile<Codes::int8, false, 16, 128, 128, 1, 4, 4, 2>;     // 72 KB of shared memory
using Int8Tile64 = W8Tile<Codes::int8, false, 64, 128, 64, 2, 2, 4, 2>;      // 48 KB
using Int8Tile128 = W8Tile<Codes::int8, false, 128, 128, 64, 2, 2, 3, 2>;    // 48 KB: two in an sm_86's or sm_89's 100
using Int8Tile128x5 = W8Tile<Codes::int8, false, 128, 128, 64, 2, 2, 5, 2>;  // 80 KB: two in the 164 KB of an sm_80

// The lowest tile is bound by the weight's bytes: it has no need to be inexact. Two sums for each output of the others
// want twice the threads.
using E4m3Tile16 = W8Tile<Codes::e4m3, true, 16, 128, 128, 1, 4, 4, 2>;        // 72 KB
using E4m3Tile64 = W8Tile<Codes::e4m3, false, 64, 128, 64, 2, 2, 4, 2>;        // 48 KB
using E4m3Tile64Exact = W8Tile<Codes::e4m3, true, 64, 128, 64, 2, 4, 4, 1>;    // 48 KB
using E4m3Tile128 = W8Tile<Codes::e4m3, false, 128, 128, 64, 2, 2, 3, 2>;      // 48 KB
using E4m3Tile128Exact = W8Tile<Codes::e4m3, true, 128, 128, 64, 2, 4, 5, 1>;  // 80 KB

template <class T>
int launch_tile(const Gemm& p, void* stream);  // a cudaError_t

// Plan::tile is an index into the tiles of these codes above, in their order.
constexpr int kInt8Tiles = 4, kE4m3Tiles = 5;
Plan plan_w8a8(Codes codes, const GemmW8A8& op, const Card& card);
int run_w8a8(Codes codes, const GemmW8A8& op, const Plan& plan, const CudaCall& call);

}  // namespace pennyweight::cuda
