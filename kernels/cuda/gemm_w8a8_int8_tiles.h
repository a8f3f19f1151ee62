// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_int8_tiles.h: the tiles that gemm_w8a8_int8_sm80.cuh is compiled for, one per .cu, and what they are given.
#pragma once
#include "pennyweight/cuda.h"
#include "pennyweight/linear.h"
#include "tile/output.h"
#include "tile/walk.h"

namespace pennyweight::cuda {

// The sums are bare where there is no row scale.
struct Int8Epilogue {
  const float* row_scale;
  const float* col_scale;
  const void* bias;
  Output y;
};

struct GemmInt8 {
  const int8_t* x;
  const uint8_t* weight;
  int64_t m, n, k, x_stride;
  Walk walk;
  Int8Epilogue epilogue;
  int32_t* partial;  // (splits, m, partial_stride) where K is split, else null
  int64_t partial_stride;
};

template <int BM_, int BN_, int BK_, int warps_m_, int warps_n_, int stages_, int blocks_per_sm_>
struct Int8Tile {
  static constexpr int BM = BM_, BN = BN_, BK = BK_, warps_m = warps_m_, warps_n = warps_n_, stages = stages_;
  static constexpr int blocks_per_sm = blocks_per_sm_;
  static constexpr int threads = 32 * warps_m * warps_n;
  static constexpr int WM = BM / warps_m, WN = BN / warps_n;  // of a warp
  static constexpr int rows = WM / 16, columns = WN / 8;      // its mma tiles
  static constexpr int x_chunks = BK / 16;                    // of a row
  static constexpr int x_bytes = BM * BK, stage_bytes = x_bytes + BN * BK;
  static constexpr int shared_bytes = stages * stage_bytes;
  static_assert(BN % kPanel == 0 && WM % 16 == 0 && WN % 32 == 0 && BK % 64 == 0 && stages >= 2);
  static_assert(BM * x_chunks % threads == 0 && BN * x_chunks % threads == 0 && threads % x_chunks == 0);
};

using Int8Tile16 = Int8Tile<16, 128, 128, 1, 4, 4, 2>;     // 72 KB of shared memory
using Int8Tile64 = Int8Tile<64, 128, 64, 2, 2, 4, 2>;      // 48 KB
using Int8Tile128 = Int8Tile<128, 128, 64, 2, 2, 3, 2>;    // 48 KB: two blocks in the 100 KB of an sm_86 or sm_89
using Int8Tile128x5 = Int8Tile<128, 128, 64, 2, 2, 5, 2>;  // 80 KB: two in the 164 KB of an sm_80, or an sm_90

template <class T>
int launch_tile(const GemmInt8& p, void* stream);  // a cudaError_t

// How a problem is cut. `tile`: 0 .. 3, as above.
struct Int8Plan {
  int tile, splits;
};
constexpr int kInt8Tiles = 4;
Int8Plan plan_int8(const GemmW8A8Int8& op, const Card& card);
int64_t partial_bytes(const GemmW8A8Int8& op, const Int8Plan& plan);
int run_int8(const GemmW8A8Int8& op, const Int8Plan& plan, const CudaCall& call);

}  // namespace pennyweight::cuda
