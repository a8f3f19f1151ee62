// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_sm80.cuh: y = (x . weight^T) * row_scale * col_scale + bias, codes of 8 bits, INT8 or FP8 E4M3, on tensor
// cores by mma.sync
//
//   y[m,n] = ((float)(sum_k x[m,k] * w[n,k]) * row_scale[m]) * col_scale[n] + bias[n]
//
// Shapes    x (M,K) codes, rows 16-byte aligned; weight CODE_ROWS (docs/layouts.md); y (M,N) f32, f16, bf16, of INT8
//           also the bare int32 sums
// Needs     sm_80 (cp.async, mma.sync m16n8k32), for E4M3 sm_89; any M, N, K: rows that do not exist are not read,
//           inputs that do not are zeros in shared memory, outputs that do not are not stored
// Tile      BM x BN x BK (M,N,K) per block; the ring is tile/ring.cuh, the walk tile/walk.h:
//
//              K →  BK   BK   BK
//            N  ┌────┬────┬────┬────      both operands lie alike, rows of BK bytes: K runs inside a row, which is what
//            ↓  │ i  │i+1 │i+2 │ ...      fragments of 8-bit codes want of A and of B
//           BN  └────┴────┴────┴────
//
// Fragments both by ldmatrix, four 8 x 16 byte matrices at a time. Of x: 16 rows, 32 inputs. Of the weight: 32 outputs,
//           16 inputs, one matrix for each of four B tiles; in shared memory outputs lie in the order of the tiles
//           (tile/shared.cuh), so that column g of tile j is output 4g + j and the 8 rows that a matrix reads lie
//           together, 8 different chunks modulo 8. Copies move whole rows' pieces and do not care for the order.
//
//            lane (g,t)  ends up  with outputs 8t .. 8t + 7 of rows g and g + 8    → one 16-byte store per row
//
// Limit     2 M N K operations over the peak of 8 bits (E4M3 on sm_90: of 16 bits, ptx/matrix.cuh); for M <= 64 the
//           weight's N K bytes over the memory's bandwidth.
//           Per k tile a block reads (BM + BN) BK bytes from L2 and multiplies BM BN BK: 128 x 128 needs 1 byte per 64
//           multiplications. Shared memory: a warp of 64 x 64 reads 4 KB in 8 ldmatrix per 32 mma, 64 bytes a cycle and
//           SM at the full rate of an A100 (of 128); 64 x 32 would read 96.
// Numerics  INT8: sums exact modulo 2^32, hence without error for K < 131072; splits of K add up in int32, exact in any
//           order; the same bits as the CPU.
//           E4M3: float32 sums, but inside an mma a card has 13 bits or so behind the point (ptx/matrix.cuh). A tile
//           that is `exact` adds its sums up in float32 registers every 128 inputs and starts anew from zero, one FADD
//           per 4 mma and sum; the others (fast_accum) leave them where they are over all of K. sm_90 multiplies E4M3
//           as f16 and sums in float32 anyway. Splits of K are added in a fixed order: runs repeat bit for bit.
//           The float operations of the epilogue are those of the CPU, in their order.
// Reference kernels/reference/linear.cpp          Source  own
// Tried     not yet run on a card; emulated against the reference (tests/cuda).
//           The CPU's panels, read as dwords of 4 outputs: as good for mma.sync, but one LOP3 more per 4 codes (codes
//           + 128) and useless for wgmma; CODE_ROWS serves both.
#pragma once
#include "gemm_w8a8_tiles.h"
#include "ptx/matrix.cuh"
#include "tile/epilogue.cuh"
#include "tile/ring.cuh"
#include "tile/shared.cuh"

namespace pennyweight::cuda {

// `exists`: whether the card that this is compiled for has it.
template <Codes codes>
struct Arithmetic;
template <>
struct Arithmetic<Codes::int8> {
  using Sum = int32_t;
  static __device__ __forceinline__ bool exists(bool) { return true; }
  static __device__ __forceinline__ void mma(Sum (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_s8(c, a, b);
  }
};
template <>
struct Arithmetic<Codes::e4m3> {
  using Sum = float;
  // sm_90 unpacks to f16, for which only the tiles that leave room for two sums have registers.
  static __device__ __forceinline__ bool exists(bool exact) {
    return ptx::architecture() >= 89 && (ptx::architecture() != 90 || exact);
  }
  static __device__ __forceinline__ void mma(Sum (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_e4m3(c, a, b);
  }
};

template <class T>
struct W8Block {
  using Math = Arithmetic<T::codes>;
  using Sum = typename Math::Sum;
  using Sums = Sum[T::rows][T::columns][4];  // (WM, WN)
  using RowsOfX = Rows<T::chunks>;
  using RowsOfWeight = Outputs<Rows<T::chunks>>;

  const Gemm& p;
  const Place place;
  unsigned char* const shared;
  const int lane, warp_m, warp_n;
  const RowCopy<RowsOfX, T::BM, T::threads> x_copy;
  const RowCopy<RowsOfWeight, T::BN, T::threads> weight_copy;

  __device__ __forceinline__ W8Block(const Gemm& p, const Place& place, unsigned char* shared, int thread)
      : p(p),
        place(place),
        shared(shared),
        lane(thread & 31),
        warp_m(thread / 32 % T::warps_m * T::WM),
        warp_n(thread / 32 / T::warps_m * T::WN),
        x_copy(p.x, p.x_stride, static_cast<int64_t>(place.m_tile) * T::BM, p.m, p.k, thread),
        weight_copy(p.weight, p.weight_stride, static_cast<int64_t>(place.n_tile) * T::BN, p.n, p.k, thread) {}

  // A k tile's place in the ring; turns are counted from the block's first tile.
  __device__ __forceinline__ unsigned char* stage(int turn) const { return shared + turn % T::stages * T::stage_bytes; }

  // Starts the copies of a k tile into its place in the ring.
  __device__ __forceinline__ void copy_tile(int turn) const {
    const int64_t k0 = (static_cast<int64_t>(place.k_begin) + turn) * T::BK;
    x_copy.start(stage(turn), k0);
    weight_copy.start(stage(turn) + T::x_bytes, k0);
  }

  __device__ __forceinline__ void multiply(int turn, Sums& acc) const {
    const unsigned char* x = stage(turn);
    const unsigned char* weight = x + T::x_bytes;
#pragma unroll
    for (int block = 0; block < T::BK / 32; ++block) {
      uint32_t a[T::rows][4], b[T::columns][2];
#pragma unroll
      for (int i = 0; i < T::rows; ++i)
        ptx::load_matrix_x4(a[i], x + 16 * RowsOfX::place(warp_m + i * 16 + (lane & 15), block * 2 + (lane >> 4)));
#pragma unroll
      for (int j = 0; j < T::columns; j += 4)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint32_t word[4];  // 4 inputs of a column of each of four tiles
          ptx::load_matrix_x4(word, weight + 16 * RowsOfWeight::place(warp_n + j * 8 + lane, block * 2 + half));
#pragma unroll
          for (int o = 0; o < 4; ++o) b[j + o][half] = word[o];
        }
#pragma unroll
      for (int i = 0; i < T::rows; ++i)
#pragma unroll
        for (int j = 0; j < T::columns; ++j) Math::mma(acc[i][j], a[i], b[j]);
    }
  }

  // acc += part, part = 0
  __device__ __forceinline__ void promote(Sums& part, Sums& acc) const {
#pragma unroll
    for (int i = 0; i < T::rows; ++i)
#pragma unroll
      for (int j = 0; j < T::columns; ++j)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          acc[i][j][c] += part[i][j][c];
          part[i][j][c] = 0;
        }
  }

  __device__ __forceinline__ void store(const Sums& acc) const {
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int j = 0; j < T::columns; j += 4) {
      const int64_t n = static_cast<int64_t>(place.n_tile) * T::BN + warp_n + j * 8 + t * 8;
      const int64_t left = p.n - n;
      if (left <= 0) continue;
      const int count = left < 8 ? static_cast<int>(left) : 8;
#pragma unroll
      for (int i = 0; i < T::rows; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int64_t row = static_cast<int64_t>(place.m_tile) * T::BM + warp_m + i * 16 + half * 8 + g;
          if (row >= p.m) continue;
          Sum sum[8];
#pragma unroll
          for (int o = 0; o < 4; ++o) {
            sum[o] = acc[i][j + o][half * 2];
            sum[o + 4] = acc[i][j + o][half * 2 + 1];
          }
          if (p.partial)
            store_partial(p.partial, p.partial_stride, place.split * p.m + row, n, sum);
          else
            store_sums(p.epilogue, row, n, count, sum);
        }
    }
  }
};

template <class T>
__global__ void __launch_bounds__(T::threads, T::blocks_per_sm) gemm_w8a8_sm80(const Gemm p) {
  PW_DYNAMIC_SHARED(shared);
  if (!W8Block<T>::Math::exists(T::exact)) {  // known to the compiler: the rest is left out
    __trap();
    return;
  }
  const W8Block<T> block(p, place_of(p.walk, blockIdx.x), shared, static_cast<int>(threadIdx.x));
  typename W8Block<T>::Sums acc = {};
  const int turns = block.place.k_end - block.place.k_begin;
  const auto copy = [&](int i) { block.copy_tile(i); };
  if (T::exact && ptx::architecture() != 90) {
    typename W8Block<T>::Sums part = {};
    run_ring<T::stages>(turns, copy, [&](int i) {
      block.multiply(i, part);
      if ((i + 1) % (kExactInputs / T::BK) == 0) block.promote(part, acc);
    });
    block.promote(part, acc);
  } else {
    run_ring<T::stages>(turns, copy, [&](int i) { block.multiply(i, acc); });
  }
  block.store(acc);
}

template <class T>
int launch_tile(const Gemm& p, void* stream) {
  return launch(gemm_w8a8_sm80<T>, dim3(p.walk.blocks()), dim3(T::threads), T::shared_bytes, stream, p);
}

}  // namespace pennyweight::cuda
