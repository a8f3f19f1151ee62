// SPDX-License-Identifier: Apache-2.0
// halves.h: tiles of the layers with 16-bit activations (tile/halves.cuh).
#pragma once

namespace pennyweight::cuda {

enum class Half { f16, bf16 };

// BM tokens, 32 outputs per warp, BK inputs.
template <Half half_, int BM_, int BK_, int warps_m_, int warps_n_, int stages_, int blocks_per_sm_>
struct HalfTile {
  static constexpr Half half = half_;
  static constexpr int BM = BM_, BK = BK_, warps_m = warps_m_, warps_n = warps_n_, stages = stages_;
  static constexpr int blocks_per_sm = blocks_per_sm_;
  static constexpr int BN = 32 * warps_n;
  static constexpr int threads = 32 * warps_m * warps_n;
  static constexpr int WM = BM / warps_m, tokens = WM / 8;  // of a warp; its mma tiles of 8
  static constexpr int blocks = BK / 32;
  static constexpr int x_chunks = BK / 8;  // of a row
  static constexpr int x_bytes = BM * BK * 2;
  static_assert(WM % 8 == 0 && stages >= 2);
};

}  // namespace pennyweight::cuda
