// SPDX-License-Identifier: Apache-2.0
// linear_w8a16_tiles.h: the tiles that linear_w8a16_sm80.cuh is compiled for, one per .cu.
#pragma once
#include "pennyweight/linear.h"
#include "tile/gemm.h"
#include "tile/halves.h"

namespace pennyweight::cuda {

template <Half half, int BM, int warps_m, int warps_n, int stages, int blocks_per_sm>
struct W8A16Tile : HalfTile<half, BM, 64, warps_m, warps_n, stages, blocks_per_sm> {
  using Base = HalfTile<half, BM, 64, warps_m, warps_n, stages, blocks_per_sm>;
  static constexpr int stage_bytes = Base::x_bytes + Base::BN * Base::BK;
  static constexpr int shared_bytes = stages * stage_bytes;
};

template <Half half>
using W8A16Tile16 = W8A16Tile<half, 16, 1, 8, 4, 2>;  // 72 KB of shared memory
template <Half half>
using W8A16Tile64 = W8A16Tile<half, 64, 2, 4, 4, 1>;  // 64 KB
template <Half half>
using W8A16Tile128 = W8A16Tile<half, 128, 2, 4, 4, 1>;  // 96 KB

template <class T>
int launch_w8a16(const Gemm& p, void* stream);  // a cudaError_t

// Plan::tile: 0 .. 2, as above.
constexpr int kW8A16Tiles = 3;
Plan plan_w8a16(int64_t m, int64_t n, int64_t k, const Card& card);
int run_w8a16(const LinearW8A8Fp8& op, const Plan& plan, const CudaCall& call);

}  // namespace pennyweight::cuda
