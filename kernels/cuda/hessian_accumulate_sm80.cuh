// SPDX-License-Identifier: Apache-2.0
// hessian_accumulate_sm80.cuh: h += x^T . x, lower triangle, on 16-bit tensor cores with float32 sums
//
//   h[i,j] += sum_t x[t,i] * x[t,j]          j <= i
//
// Shapes    x (T,K) f16 or bf16 rows, 16-byte aligned; h (K,K) f32. Others come as copies, 4096 tokens at a time (.cu):
//           unaligned rows as they are, f32 as three bf16 pieces that add up to it, of which six products are taken
// Needs     sm_80 (cp.async, mma.sync m16n8k16, ldmatrix.trans); any T, K: tokens and columns that do not exist are
//           zero-filled in shared memory, what lies above the diagonal is neither read nor written
// Tile      128 x 128 of h per block, 32 tokens a turn, 4 warps of 64 x 64; a ring of 3 copies
//           (tile/ring.cuh). Only tiles on the diagonal and below, numbered row by row:
//
//             ┌───┐
//             │ 0 │                       a block owns its tile of h and goes over all tokens: no atomics, one order.
//             ├───┼───┐                   Where tiles are too few for the card, tokens are cut into parts, and a
//             │ 1 │ 2 │                   second pass adds these up in their order
//             ├───┼───┼───┐
//             │ 3 │ 4 │ 5 │
//             └───┴───┴───┘
//
// Fragments Both operands are x^T with tokens as the summed index, and x lies token by token, so both come transposed
//           (ldmatrix.trans): 8 tokens x 8 columns turn into words of two tokens of one column, which is what A and B
//           take. A token's row is 256 bytes; chunk c of row r sits at c ^ (r % 8).
// Limit     2 T K^2 / 2 operations over the 16-bit peak (half the tiles), 1/(K/128) more for the diagonal's upper
//           halves. From L2 a turn reads 16 KB for 128 x 128 x 32 multiplications: at 250 TFLOP/s 3.9 TB/s, near what
//           an H200's L2 gives. Shared memory: 64 bytes a cycle and SM at an A100's full rate (of 128). h is visited
//           once per 16384 tokens: its K^2/2 floats read and written, a tenth of the time where a call brings but 2048
//           tokens
// Numerics  products are exact in float32 (f16: 22 bits); a tensor core may truncate where it adds 16 of them to a sum,
//           always towards zero, so that the error of a sum of squares grows with the sum. Hence a sum runs over 16384
//           tokens at most: 1024 additions, then one rounded addition to h. Bound: (1024 + T / 16384 + parts) * 2^-23
//           of the sum of |x_i x_j|, instead of T / 16 times that. f32 x: the dropped products are below 2^-25 of
//           |x_i x_j|. The order depends on K, T and the card alone: the same bits in every run
// Reference kernels/reference/calibrate.cpp          Source  own
// Tried     not yet run on a card; emulated against sums in float64 (tests/cuda)
#pragma once
#include "hessian_accumulate_tiles.h"
#include "ptx/convert.cuh"
#include "ptx/copy.cuh"
#include "ptx/matrix.cuh"
#include "tile/ring.cuh"
#include "tile/shared.cuh"

namespace pennyweight::cuda {

struct TilePlace {
  int row, column;
};

// Tile `index` of the lower triangle, which begins at row (row + 1) / 2.
PW_DEVICE TilePlace tile_place(int index) {
  const float eight = 8.0f * static_cast<float>(index) + 1.0f;
  int64_t row = static_cast<int64_t>((eight * ptx::approximate_inverse_root(eight) - 1.0f) * 0.5f);
  while (row * (row + 1) / 2 > index) --row;
  while ((row + 1) * (row + 2) / 2 <= index) ++row;
  return {static_cast<int>(row), static_cast<int>(index - row * (row + 1) / 2)};
}

template <DType dtype>
struct HessianBlock {
  using T = HessianTile;
  using Sums = float[4][8][4];

  const HessianProblem& p;
  unsigned char* const shared;
  const int tid, lane, warp_row, warp_column, split, index;
  const TilePlace place;
  int begin, end;  // of this block's turns, over all passes

  __device__ __forceinline__ HessianBlock(const HessianProblem& p, unsigned char* shared)
      : p(p),
        shared(shared),
        tid(static_cast<int>(threadIdx.x)),
        lane(tid & 31),
        warp_row(tid / 32 % 2 * T::warp),
        warp_column(tid / 64 * T::warp),
        split(static_cast<int>(blockIdx.x / static_cast<unsigned>(p.lower))),
        index(static_cast<int>(blockIdx.x) - split * p.lower),
        place(tile_place(index)) {
    const int64_t turns = static_cast<int64_t>(p.turns) * p.passes;
    begin = static_cast<int>(split * turns / p.splits);
    end = static_cast<int>((split + 1) * turns / p.splits);
  }

  __device__ __forceinline__ unsigned char* stage(int turn) const { return shared + turn % T::stages * T::stage_bytes; }

  // Starts the copies of 32 tokens' columns into their place in the ring.
  __device__ __forceinline__ void copy_tile(int turn) const {
    const int64_t all = begin + turn;
    const int pass = p.passes == 1 ? 0 : static_cast<int>(all / p.turns);
    const int64_t token = (all - static_cast<int64_t>(pass) * p.turns) * T::tokens;
    copy_columns(stage(turn), kPassLeft >> (4 * pass) & 15u, place.row, token);
    copy_columns(stage(turn) + T::operand_bytes, kPassRight >> (4 * pass) & 15u, place.column, token);
  }

  __device__ __forceinline__ void copy_columns(unsigned char* to, unsigned piece, int tile, int64_t token) const {
    constexpr int at_once = T::threads / T::chunks;
    const int chunk = tid % T::chunks, first = tid / T::chunks;
    const int64_t column = static_cast<int64_t>(tile) * T::side + chunk * 8, left = 2 * (p.k - column);
    const int bytes = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
    const uint16_t* from = p.x + piece * p.piece + (token + first) * p.stride + column;
    to += 16 * Rows<T::chunks>::place(first, chunk);  // the swizzle has a period of 8 rows
#pragma unroll
    for (int i = 0; i < T::tokens / at_once; ++i)
      ptx::copy_async_bytes(to + i * at_once * (2 * T::side), from + i * at_once * p.stride,
                            token + first + i * at_once < p.t ? bytes : 0);
  }

  __device__ __forceinline__ void multiply(int turn, Sums& acc) const {
    const unsigned char* left = stage(turn);
    const unsigned char* right = left + T::operand_bytes;
#pragma unroll
    for (int block = 0; block < T::tokens / 16; ++block) {
      uint32_t a[4][4], b[8][2];
      const int row = block * 16 + (lane & 7);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        ptx::load_matrix_x4_transposed(
            a[i], left + 16 * Rows<T::chunks>::place(row + (lane >> 4) * 8, warp_row / 8 + i * 2 + (lane >> 3 & 1)));
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        uint32_t two[4];
        ptx::load_matrix_x4_transposed(
            two, right + 16 * Rows<T::chunks>::place(row + (lane >> 3 & 1) * 8, warp_column / 8 + j + (lane >> 4)));
        b[j][0] = two[0];
        b[j][1] = two[1];
        b[j + 1][0] = two[2];
        b[j + 1][1] = two[3];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          if constexpr (dtype == DType::f16)
            ptx::mma_f16(acc[i][j], a[i], b[j]);
          else
            ptx::mma_bf16(acc[i][j], a[i], b[j]);
        }
    }
  }

  // Adds a run's sums to h, or to the part, which the first run writes; they are zero after.
  __device__ __forceinline__ void add(bool first, Sums& acc) const {
    const int64_t row0 = static_cast<int64_t>(place.row) * T::side,
                  column0 = static_cast<int64_t>(place.column) * T::side;
    float* part =
        p.partial ? p.partial + (static_cast<int64_t>(split) * p.lower + index) * (T::side * T::side) : nullptr;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row + i * 16 + half * 8 + (lane >> 2);
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            const int column = warp_column + j * 8 + (lane & 3) * 2 + odd;
            float& sum = acc[i][j][half * 2 + odd];
            if (part) {
              float* to = part + row * T::side + column;
              *to = first ? sum : *to + sum;
            } else if (row0 + row < p.k && column0 + column <= row0 + row) {
              p.h[(row0 + row) * p.k + column0 + column] += sum;
            }
            sum = 0.0f;
          }
      }
  }
};

template <DType dtype>
__global__ void __launch_bounds__(HessianTile::threads, HessianTile::blocks_per_sm)
    hessian_accumulate_sm80(const HessianProblem p) {
  using T = HessianTile;
  PW_DYNAMIC_SHARED(shared);
  const HessianBlock<dtype> block(p, shared);
  const int turns = block.end - block.begin;
  typename HessianBlock<dtype>::Sums acc = {};

  run_ring<T::stages>(
      turns, [&](int turn) { block.copy_tile(turn); },
      [&](int turn) {
        block.multiply(turn, acc);
        if ((turn + 1) % T::run == 0 || turn + 1 == turns) block.add(turn < T::run, acc);
      });
}

template <DType dtype>
int launch_hessian(const HessianProblem& p, void* stream) {
  return launch(hessian_accumulate_sm80<dtype>, dim3(static_cast<unsigned>(p.lower) * p.splits),
                dim3(HessianTile::threads), HessianTile::shared_bytes, stream, p);
}

}  // namespace pennyweight::cuda
