// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_int8_sm80.cuh: y = (x . weight^T) * row_scale * col_scale + bias, codes of 8 bits, on INT8 tensor cores
//
//   y[m,n] = ((float)(sum_k x[m,k] * w[n,k]) * row_scale[m]) * col_scale[n] + bias[n]
//
// Shapes    x (M,K) int8 rows, 16-byte aligned; weight INT8_PANEL (docs/layouts.md), the bytes that CPUs read too;
//           y (M,N) f32, f16, bf16, or the bare int32 sums
// Needs     sm_80 (cp.async, mma.sync m16n8k32); any M, N, K: rows and inputs that do not exist are zero-filled in
//           shared memory, outputs that do not exist are not stored
// Tile      BM x BN x BK (M,N,K) per block; a ring of `stages` copies; one barrier per k tile:
//
//              K →  BK   BK   BK                 wait for tile i ─ barrier ─ start copying tile i + stages - 1
//            N  ┌────┬────┬────┬────             into the place of tile i - 1, which all warps have left
//            ↓  │ i  │i+1 │i+2 │ ...             ─ multiply tile i
//           BN  └────┴────┴────┴────
//
// Fragments x by ldmatrix. A panel's dword is 4 inputs of one output, which is what a lane of the B fragment holds; a
//           lane takes 4 neighbouring outputs at once (16 bytes), so that its columns of tile j are outputs 4g + j:
//
//            lane (g,t)  reads    step t, outputs 4g .. 4g + 3  →  B of 4 tiles        g = lane / 4, t = lane % 4
//                        ends up  with outputs 8t .. 8t + 7 of rows g and g + 8        → one 16-byte store per row
//
//           The panel holds code + 128 as unsigned bytes; flipping the top bits gives int8 back, one LOP3 per 4 codes.
// Limit     2 M N K operations over the INT8 peak; for M <= 64 the weight's N K bytes over the memory's bandwidth.
//           Per k tile a block reads (BM + BN) BK bytes from L2 and multiplies BM BN BK: 128 x 128 needs 1 byte per 64
//           multiplications. Shared memory: a warp of 64 x 64 reads 4 KB per 32 mma, 64 bytes a cycle and SM at the
//           full rate of an A100 (of 128); 64 x 32 would read 96.
// Numerics  sums exact modulo 2^32, hence without error for K < 131072; splits of K add up in int32, exact in any
//           order; the float operations of the epilogue are those of the CPU, in their order: the same bits.
// Reference kernels/reference/linear.cpp          Source  own
// Tried     not yet run on a card; emulated against the reference (tests/cuda)
#pragma once
#include "gemm_w8a8_int8_epilogue.cuh"
#include "ptx/copy.cuh"
#include "ptx/matrix.cuh"
#include "tile/shared.cuh"

namespace pennyweight::cuda {

template <class T>
struct Int8Block {
  static_assert(T::threads / T::x_chunks % 8 == 0 && T::BK / 4 % (T::threads / kStepChunks) == 0);

  const GemmInt8& p;
  const Place place;
  unsigned char* const shared;
  const int tid, lane, warp_m, warp_n;

  __device__ __forceinline__ Int8Block(const GemmInt8& p, const Place& place, unsigned char* shared)
      : p(p),
        place(place),
        shared(shared),
        tid(static_cast<int>(threadIdx.x)),
        lane(tid & 31),
        warp_m(tid / 32 % T::warps_m * T::WM),
        warp_n(tid / 32 / T::warps_m * T::WN) {}

  // A k tile's place in the ring; turns are counted from the block's first tile.
  __device__ __forceinline__ unsigned char* stage(int turn) const { return shared + turn % T::stages * T::stage_bytes; }

  // Starts the copies of a k tile into its place in the ring.
  __device__ __forceinline__ void copy_tile(int turn) const {
    unsigned char* to = stage(turn);
    const int64_t k_tile = place.k_begin + turn;
    copy_x(to, k_tile * T::BK);
    copy_weight(to + T::x_bytes, k_tile * (T::BK / 4));
  }

  __device__ __forceinline__ void copy_x(unsigned char* to, int64_t k0) const {
    constexpr int at_once = T::threads / T::x_chunks;
    const int chunk = tid % T::x_chunks, first = tid / T::x_chunks;
    const int64_t left = p.k - k0 - chunk * 16, row0 = static_cast<int64_t>(place.m_tile) * T::BM + first;
    const int bytes = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
    const int8_t* from = p.x + row0 * p.x_stride + k0 + chunk * 16;
    to += 16 * chunk_of_row<T::x_chunks>(first, chunk);  // the swizzle has a period of 8 rows
#pragma unroll
    for (int i = 0; i < T::BM / at_once; ++i)
      ptx::copy_async_bytes(to + i * at_once * T::BK, from + i * at_once * p.x_stride,
                            row0 + i * at_once < p.m ? bytes : 0);
  }

  __device__ __forceinline__ void copy_weight(unsigned char* to, int64_t step0) const {
    constexpr int steps = T::BK / 4, at_once = T::threads / kStepChunks, turns = steps / at_once;
    const int chunk = tid % kStepChunks, first = tid / kStepChunks;
    const int64_t all_steps = (p.k + 3) / 4, panels = (p.n + kPanel - 1) / kPanel;
    const int64_t panel0 = static_cast<int64_t>(place.n_tile) * (T::BN / kPanel);
    const uint8_t* from = p.weight + (panel0 * all_steps + step0 + first) * (4 * kPanel) + chunk * 16;
    to += 16 * chunk_of_step(first, chunk);  // the swizzle has a period of 4 steps
#pragma unroll
    for (int panel = 0; panel < T::BN / kPanel; ++panel)
#pragma unroll
      for (int i = 0; i < turns; ++i) {
        const bool there = panel0 + panel < panels && step0 + first + i * at_once < all_steps;
        ptx::copy_async_bytes(to + (panel * steps + i * at_once) * (4 * kPanel),
                              from + (panel * all_steps + i * at_once) * (4 * kPanel), there ? 16 : 0);
      }
  }

  __device__ __forceinline__ void multiply(int turn, int32_t (&acc)[T::rows][T::columns][4]) const {
    const unsigned char* x = stage(turn);
    const unsigned char* weight = x + T::x_bytes;
    const int g = lane >> 2, t = lane & 3;
#pragma unroll
    for (int block = 0; block < T::BK / 32; ++block) {
      uint32_t a[T::rows][4], b[T::columns][2];
#pragma unroll
      for (int i = 0; i < T::rows; ++i)
        ptx::load_matrix_x4(a[i],
                            x + 16 * chunk_of_row<T::x_chunks>(warp_m + i * 16 + (lane & 15), block * 2 + (lane >> 4)));
#pragma unroll
      for (int j = 0; j < T::columns; j += 4) {
        const int column = warp_n + j * 8, panel = column / kPanel;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int step = panel * (T::BK / 4) + block * 8 + half * 4 + t;
          const Four four = *reinterpret_cast<const Four*>(weight + 16 * chunk_of_step(step, column % kPanel / 4 + g));
#pragma unroll
          for (int o = 0; o < 4; ++o) b[j + o][half] = four.word[o] ^ 0x80808080u;
        }
      }
#pragma unroll
      for (int i = 0; i < T::rows; ++i)
#pragma unroll
        for (int j = 0; j < T::columns; ++j) ptx::mma_s8(acc[i][j], a[i], b[j]);
    }
  }

  __device__ __forceinline__ void store(const int32_t (&acc)[T::rows][T::columns][4]) const {
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
          int32_t sum[8];
#pragma unroll
          for (int o = 0; o < 4; ++o) {
            sum[o] = acc[i][j + o][half * 2];
            sum[o + 4] = acc[i][j + o][half * 2 + 1];
          }
          store_row(row, n, count, sum);
        }
    }
  }

  __device__ __forceinline__ void store_row(int64_t row, int64_t n, int count, const int32_t (&sum)[8]) const {
    if (!p.partial) return store_int8(p.epilogue, row, n, count, sum);
    uint32_t bits[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) bits[i] = static_cast<uint32_t>(sum[i]);
    // rows of partial sums are whole eights, so that no store has a tail
    store_words({p.partial, p.partial_stride, DType::i32, true}, place.split * p.m + row, n, 8, bits);
  }
};

template <class T>
__global__ void __launch_bounds__(T::threads, T::blocks_per_sm) gemm_w8a8_int8_sm80(const GemmInt8 p) {
  PW_DYNAMIC_SHARED(shared);
  const Int8Block<T> block(p, place_of(p.walk, blockIdx.x), shared);
  const int turns = block.place.k_end - block.place.k_begin;
  int32_t acc[T::rows][T::columns][4] = {};  // (WM, WN) sums

#pragma unroll
  for (int s = 0; s < T::stages - 1; ++s) {
    if (s < turns) block.copy_tile(s);
    ptx::commit_copies();
  }
#pragma unroll 1
  for (int i = 0; i < turns; ++i) {
    ptx::wait_copies<T::stages - 2>();  // tile i is there
    __syncthreads();                    // for all threads, and all have left tile i - 1
    if (i + T::stages - 1 < turns) block.copy_tile(i + T::stages - 1);
    ptx::commit_copies();
    block.multiply(i, acc);
  }
  block.store(acc);
}

template <class T>
int launch_tile(const GemmInt8& p, void* stream) {
  return launch(gemm_w8a8_int8_sm80<T>, dim3(p.walk.blocks()), dim3(T::threads), T::shared_bytes, stream, p);
}

}  // namespace pennyweight::cuda
