// SPDX-License-Identifier: Apache-2.0
// halves.cuh: what the layers with 16-bit activations have in common. The weight, decoded in registers, is operand A
// (16 outputs), x is operand B (8 tokens): y^T = w . x^T.
//
// A lane (g,t) has 8 neighbouring inputs of an output at once, k 8t .. 8t + 7 of a block of 32, and of four
// neighbouring outputs. The order of inputs inside a sum is free, so it gives them to its own places of two mma, and
// takes the same 8 inputs of x (16 bytes of a row, in the registers' order) for them: no shuffle, no move, no repacking
// of the weight:
//
//            lane's places        mma 0    mma 1
//            k 2t, 2t+1        ←  k 0, 1   k 4, 5
//            k 2t+8, 2t+9      ←  k 2, 3   k 6, 7
//
// Outputs 4g + 2j and 4g + 2j + 1 are rows g and g + 8 of A tile j, so that a lane ends up with outputs 4g .. 4g + 3 of
// tokens 2t and 2t + 1: an 8-byte store each, 64 bytes side by side for the eight g.
#pragma once
#include "ptx/matrix.cuh"
#include "tile/epilogue.cuh"
#include "tile/gemm.h"
#include "tile/halves.h"
#include "tile/ring.cuh"
#include "tile/shared.cuh"

namespace pennyweight::cuda {

template <class T, class Call>
struct HalfBlock {
  using Sums = float[T::tokens][2][4];  // c[0], c[2]: outputs 2j, 2j + 1 of token 2t; c[1], c[3]: of token 2t + 1
  using RowsOfX = RowPairs<T::x_chunks>;

  const Call& p;
  const Place place;
  unsigned char* const shared;
  const int tid, lane, warp_m, warp_n;
  const RowCopy<RowsOfX, T::BM, T::threads> x_copy;

  __device__ __forceinline__ HalfBlock(const Call& p, const Place& place, unsigned char* shared)
      : p(p),
        place(place),
        shared(shared),
        tid(static_cast<int>(threadIdx.x)),
        lane(tid & 31),
        warp_m(tid / 32 % T::warps_m * T::WM),
        warp_n(tid / 32 / T::warps_m * 32),
        x_copy(p.x, 2 * p.x_stride, static_cast<int64_t>(place.m_tile) * T::BM, p.m, 2 * p.k, tid) {}

  __device__ __forceinline__ int turns() const { return place.k_end - place.k_begin; }

  // The lane's 8 inputs of a block of 32, of each token.
  __device__ __forceinline__ void load_x(const unsigned char* x, int block, Four (&eight)[T::tokens]) const {
#pragma unroll
    for (int i = 0; i < T::tokens; ++i)
      eight[i] =
          *reinterpret_cast<const Four*>(x + 16 * RowsOfX::place(warp_m + i * 8 + (lane >> 2), block * 4 + (lane & 3)));
  }

  // sums += w . x of A tile j. low, high: 8 inputs of rows g and g + 8, in pairs.
  __device__ __forceinline__ void multiply_tile(const uint32_t (&low)[4], const uint32_t (&high)[4],
                                                const Four (&eight)[T::tokens], int j, Sums& sums) const {
#pragma unroll
    for (int mma = 0; mma < 2; ++mma) {
      const uint32_t a[4] = {low[2 * mma], high[2 * mma], low[2 * mma + 1], high[2 * mma + 1]};
#pragma unroll
      for (int i = 0; i < T::tokens; ++i) {
        const uint32_t b[2] = {eight[i].word[2 * mma], eight[i].word[2 * mma + 1]};
        if constexpr (T::half == Half::f16)
          ptx::mma_f16(sums[i][j], a, b);
        else
          ptx::mma_bf16(sums[i][j], a, b);
      }
    }
  }

  __device__ __forceinline__ void store(const Sums& acc) const {
    const int64_t n = static_cast<int64_t>(place.n_tile) * T::BN + warp_n + (lane >> 2) * 4, left = p.n - n;
    if (left <= 0) return;
    const int count = left < 4 ? static_cast<int>(left) : 4;
#pragma unroll
    for (int i = 0; i < T::tokens; ++i)
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int64_t row = static_cast<int64_t>(place.m_tile) * T::BM + warp_m + i * 8 + (lane & 3) * 2 + odd;
        if (row >= p.m) continue;
        const float v[4] = {acc[i][0][odd], acc[i][0][odd + 2], acc[i][1][odd], acc[i][1][odd + 2]};
        if (p.partial)
          store_partial(p.partial, p.partial_stride, place.split * p.m + row, n, v);
        else
          store_sums(p.epilogue, row, n, count, v);
      }
  }
};

}  // namespace pennyweight::cuda
