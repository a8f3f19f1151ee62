// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_sm90_tiles.h: the tiles that gemm_w8a8_sm90.cuh is compiled for, one per .cu, and what they are given.
#pragma once
#include "gemm_w8a8_tiles.h"

namespace pennyweight::cuda {

// What rows and columns are: tokens and outputs, as in y, or, where tokens are few, outputs and tokens: y transposed.
// A tile has at least 64 rows, and as few as 16 columns.
enum class Rows { tokens, outputs };

// Whether two groups of 128 threads share a tile, or alternate with a tile each: one multiplies while the other stores.
enum class Groups { share, alternate };

// Sums of FP8 products stay in the tensor core, which keeps some 14 bits of them, or are added up in float32 every 128
// inputs. Sums of INT8 products are exact.
enum class Sums { fast, exact };

// Two blocks that work side by side, to which one copy brings what they share: one below the other the columns'
// operand, one beside the other the rows'.
enum class Pair { none, below, beside };

template <Codes codes_, Rows rows_, int BM_, int BN_, int BK_, Pair pair_, Groups groups_, Sums sums_>
struct Sm90Tile {
  static constexpr Codes codes = codes_;
  static constexpr Rows rows = rows_;
  static constexpr int BM = BM_, BN = BN_, BK = BK_;  // rows, columns, inputs
  static constexpr Pair pair = pair_;
  static constexpr Groups groups = groups_;
  static constexpr Sums sums = sums_;
};

template <Codes codes, Sums sums>
using Sm90Outputs64x16 = Sm90Tile<codes, Rows::outputs, 64, 16, 256, Pair::none, Groups::alternate, sums>;
template <Codes codes, Sums sums>
using Sm90Outputs64x32 = Sm90Tile<codes, Rows::outputs, 64, 32, 256, Pair::below, Groups::alternate, sums>;
template <Codes codes, Sums sums>
using Sm90Outputs64x64 = Sm90Tile<codes, Rows::outputs, 64, 64, 256, Pair::below, Groups::alternate, sums>;
template <Codes codes, Sums sums>
using Sm90Tokens64x128 = Sm90Tile<codes, Rows::tokens, 64, 128, 128, Pair::below, Groups::alternate, sums>;
template <Codes codes, Sums sums>
using Sm90Tokens128x128 = Sm90Tile<codes, Rows::tokens, 128, 128, 128, Pair::beside, Groups::alternate, sums>;
template <Codes codes, Sums sums>
using Sm90Tokens128x256 = Sm90Tile<codes, Rows::tokens, 128, 256, 128, Pair::below, Groups::share, sums>;
template <Codes codes, Sums sums>
using Sm90Tokens256x128 = Sm90Tile<codes, Rows::tokens, 256, 128, 128, Pair::below, Groups::share, sums>;
// with a second set of sums in registers
template <Codes codes, Sums sums>
using Sm90Shared128x128 = Sm90Tile<codes, Rows::tokens, 128, 128, 128, Pair::beside, Groups::share, sums>;

// Every instance, in order of preference where two do a problem in the same time.
#define PW_SM90_TILES(X)                         \
  X(Sm90Outputs64x16<Codes::e4m3, Sums::fast>)   \
  X(Sm90Outputs64x32<Codes::e4m3, Sums::fast>)   \
  X(Sm90Outputs64x64<Codes::e4m3, Sums::fast>)   \
  X(Sm90Tokens64x128<Codes::e4m3, Sums::fast>)   \
  X(Sm90Tokens128x128<Codes::e4m3, Sums::fast>)  \
  X(Sm90Tokens128x256<Codes::e4m3, Sums::fast>)  \
  X(Sm90Tokens256x128<Codes::e4m3, Sums::fast>)  \
  X(Sm90Outputs64x64<Codes::e4m3, Sums::exact>)  \
  X(Sm90Shared128x128<Codes::e4m3, Sums::exact>) \
  X(Sm90Outputs64x16<Codes::int8, Sums::exact>)  \
  X(Sm90Outputs64x32<Codes::int8, Sums::exact>)  \
  X(Sm90Outputs64x64<Codes::int8, Sums::exact>)  \
  X(Sm90Tokens64x128<Codes::int8, Sums::exact>)  \
  X(Sm90Tokens128x128<Codes::int8, Sums::exact>) \
  X(Sm90Tokens128x256<Codes::int8, Sums::exact>)

// A problem for one tile. Rows of x, weight and y begin at multiples of 16 bytes.
struct GemmSm90 {
  const void* x;       // (m, k) codes, x_stride bytes apart
  const void* weight;  // (n, k) codes, weight_stride bytes apart
  const float* row_scale;
  const float* col_scale;
  const void* bias;  // of y's dtype, or null
  void* y;           // (m, n) bf16 or f16, y_stride elements apart
  int m, n, k;
  int64_t x_stride, weight_stride, y_stride;
  bool bf16;
  int band;    // columns of tiles that are walked together: 1, 2, 4 or 8
  int blocks;  // that the card runs at one time; each takes tile after tile
};

template <class T>
int launch_sm90(const GemmSm90& p, void* stream);  // a cudaError_t

}  // namespace pennyweight::cuda
