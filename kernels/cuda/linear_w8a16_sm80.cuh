// SPDX-License-Identifier: Apache-2.0
// linear_w8a16_sm80.cuh: y = (x . weight^T) * row_scale * col_scale + bias, FP8 weights, 16-bit activations, for cards
// without FP8 tensor cores
//
//   y[m,n] = ((sum_k x[m,k] * w[n,k]) * row_scale[m]) * col_scale[n] + bias[n]           row_scale where x was codes
//
// Shapes    x (M,K) f16 or bf16 rows, 16-byte aligned; weight CODE_ROWS of E4M3 (docs/layouts.md); y (M,N) f32, f16,
//           bf16
// Needs     sm_80 (cp.async, mma.sync m16n8k16); any M, N, K, as gemm_w8a8_sm80.cuh
// Tile      BM x BN x 64 (M,N,K) per block, 32 outputs wide per warp; the ring is tile/ring.cuh, the walk tile/walk.h.
//           A stage holds x, BM rows of 128 bytes, and the codes, BN rows of 64
// Fragments tile/halves.cuh: the weight is operand A. A lane reads its 8 codes of an output in one piece, k 8t to
//           8t + 7 of a block of 32: 4 rows and 32 bytes of each for half a warp, without bank conflicts
//           (tile/shared.cuh, where outputs lie so that what neighbouring g read are neighbouring rows)
// Decode    decode_e4m3.cuh: per pair of codes one PRMT, shift and mask, three for NaN and sign, one multiplication: 7
//           operations (f16), 8 (bf16)
// Numerics  codes and 16-bit x are exact in what the tensor core multiplies, and so is each product in float32; it may
//           truncate where it adds. Sums in float32, splits of K in a fixed order: runs repeat bit for bit. x is not
//           quantized (linear_w8a8_fp8 as "sm80_w8a16"), so the result is nearer to the weight's own than W8A8 is; with
//           codes of x, decoded before to f16, it is W8A8.
// Limit     M <= 64: the weight's bytes, N K, over the bandwidth: 48 KB of codes in flight per block. Some 6
//           instructions per code and lane in all at M <= 16, so four schedulers take in some 20 bytes a cycle and SM
//           (an A100's memory brings 13, an A6000's 5). Large M: 2 M N K operations over the 16-bit peak; a warp of 64
//           tokens decodes 32 codes a lane per 32 mma.
// Reference kernels/reference/linear.cpp (gemm_w8a8_fp8)          Source  own
// Tried     not yet run on a card; emulated against exact sums (tests/cuda).
//           A flag for NaN codes, kept beside the sums and looked at in the end: 3 operations per 4 codes instead of 4
//           (f16) or 6, but four more registers, and a shuffle before every store.
//           ldmatrix for the codes: half the instructions to read them, but a lane's inputs are then 4t .. 4t + 3 of
//           16, and x needs two loads where it has one.
#pragma once
#include "decode_e4m3.cuh"
#include "linear_w8a16_tiles.h"
#include "tile/halves.cuh"

namespace pennyweight::cuda {

template <class T>
struct W8A16Block : HalfBlock<T, Gemm> {
  using Base = HalfBlock<T, Gemm>;
  using Base::lane, Base::place, Base::shared, Base::warp_n, Base::x_copy;
  using typename Base::Sums;
  using RowsOfWeight = Outputs<HalfChunks>;
  static_assert(T::BK == 16 * RowsOfWeight::row_chunks);

  const RowCopy<RowsOfWeight, T::BN, T::threads> weight_copy;

  __device__ __forceinline__ W8A16Block(const Gemm& p, const Place& place, unsigned char* shared)
      : Base(p, place, shared),
        weight_copy(p.weight, p.weight_stride, static_cast<int64_t>(place.n_tile) * T::BN, p.n, p.k, Base::tid) {}

  // A k tile's place in the ring; turns are counted from the block's first tile.
  __device__ __forceinline__ unsigned char* stage(int turn) const { return shared + turn % T::stages * T::stage_bytes; }

  // Starts the copies of a k tile into its place in the ring.
  __device__ __forceinline__ void copy_tile(int turn) const {
    const int64_t k0 = (static_cast<int64_t>(place.k_begin) + turn) * T::BK;
    x_copy.start(stage(turn), 2 * k0);
    weight_copy.start(stage(turn) + T::x_bytes, k0);
  }

  // The lane's 8 inputs of output 4g + o in a block of 32, decoded.
  __device__ __forceinline__ void load_weight(const unsigned char* codes, int block, int o, uint32_t (&pair)[4]) const {
    const int g = lane >> 2, t = lane & 3;
    const unsigned char* chunk = codes + 16 * RowsOfWeight::place(warp_n + 8 * o + g, block * 2 + (t >> 1));
    const Two eight = *reinterpret_cast<const Two*>(chunk + (t & 1) * 8);
    decode_e4m3<T::half>(eight.word[0], eight.word[1], pair);
  }

  __device__ __forceinline__ void multiply(int turn, Sums& sums) const {
    const unsigned char* x = stage(turn);
    const unsigned char* codes = x + T::x_bytes;
#pragma unroll
    for (int block = 0; block < T::blocks; ++block) {
      Four eight[T::tokens];
      this->load_x(x, block, eight);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        uint32_t low[4], high[4];
        load_weight(codes, block, 2 * j, low);
        load_weight(codes, block, 2 * j + 1, high);
        this->multiply_tile(low, high, eight, j, sums);
      }
    }
  }
};

template <class T>
__global__ void __launch_bounds__(T::threads, T::blocks_per_sm) linear_w8a16_sm80(const Gemm p) {
  PW_DYNAMIC_SHARED(shared);
  const W8A16Block<T> block(p, place_of(p.walk, blockIdx.x), shared);
  typename W8A16Block<T>::Sums sums = {};  // (32, WM)
  run_ring<T::stages>(block.turns(), [&](int i) { block.copy_tile(i); }, [&](int i) { block.multiply(i, sums); });
  block.store(sums);
}

template <class T>
int launch_w8a16(const Gemm& p, void* stream) {
  return launch(linear_w8a16_sm80<T>, dim3(p.walk.blocks()), dim3(T::threads), T::shared_bytes, stream, p);
}

}  // namespace pennyweight::cuda
