// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_sm80.cuh: y = x . ((q - z) * s)^T + bias, 4-bit weights, 16-bit activations, on tensor cores
//
//   y[m,n] = sum_g s[n,g] * sum_{k in g} x[m,k] * (q[n,k] - z[n,g]) + bias[n]
//
// Shapes    x (M,K) f16 or bf16 rows, 16-byte aligned; weight INT4_PANEL (docs/layouts.md), the bytes that CPUs read
//           too; y (M,N) as x
// Needs     sm_80 (cp.async, mma.sync m16n8k16); groups of 32, 64, 128 or one per channel, zero points or none, scales
//           of any dtype; any M, N, K: what does not exist is zero-filled in shared memory and never stored
// Tile      BM x BN x 128 (M,N,K) per block, 32 outputs wide per warp; the ring is tile/ring.cuh, the walk
//           tile/walk.h. A stage of the ring holds x, the codes, and the scales and zero points of its groups:
//
//            ┌─────────────────┬─────────────────────────┬──────────────────────────────────┐
//            │ x  BM x 128     │ codes: BN/64 panels x   │ per panel and group: 64 scales,  │
//            │ 16-bit          │ 16 steps x 64 dwords    │ 64 zero points (as they lie)     │
//            └─────────────────┴─────────────────────────┴──────────────────────────────────┘
//
// Fragments tile/halves.cuh: the weight is operand A. A dword of the panel is 8 inputs of one output, k 8t .. 8t + 7 of
// a
//           block of 32 for lane (g,t), and decoding it leaves them in pairs, in order:
//
//            dword, bit  0    4    8    12  │ 16   20   24   28            lane's places        mma 0    mma 1
//                      ┌────┬────┬────┬────┼────┬────┬────┬────┐           k 2t, 2t+1      ←  k 0, 1   k 4, 5
//                      │ k0 │ k2 │ k4 │ k6 │ k1 │ k3 │ k5 │ k7 │           k 2t+8, 2t+9    ←  k 2, 3   k 6, 7
//                      └────┴────┴────┴────┴────┴────┴────┴────┘
//
//           Four neighbouring outputs are one 16-byte load; the zero points and scales that a lane needs are those of
//           outputs 4g .. 4g + 3, before as after the multiplication.
// Decode    f16: LOP3 puts a pair of nibbles u under the exponent of 1024 (1024 + u, or 1024 + 16 u), one FMA takes
//           1024 + 8 + z away again (and divides by 16): 9 operations per 8 codes. bf16 has 7 bits of mantissa: every
//           pair is shifted down, 128 + u, and one FMA takes 136 + z away: 11. Zero points cost nothing more.
// Numerics  q - z is exact in both types, so the tensor core multiplies what the formula says; its float32 sum of a
//           group is scaled once by FMA in float32. No rounding of (q - z) * s to 16 bits. The order of summation
//           depends on the tile and on the split of K, which follow from the shape and the card: runs repeat bit for
//           bit. Bound in tests/cuda.
// Limit     M <= 64: the weight's bytes, N K / 2 and 1/32 more for bf16 scales of groups of 128, over the bandwidth; a
//           stage of BN = 256 has 16 KB of codes, and two or three stages of two blocks per SM keep 64 KB or more in
//           flight. A warp's turn at M <= 16 (16 dwords a lane, 2 KB of codes) is some 400 instructions in the
//           machine code, so four schedulers take in some 20 bytes a cycle and SM: an H200's memory brings 18 to 21,
//           an A100's 13. Large M: 2 M N K operations over the f16 peak; a warp decodes 8 codes per 8 mma.
// Reference kernels/reference/linear.cpp
// Source    own; LOP3 under an exponent is in FasterTransformer and Marlin too
// Tried     not yet run on a card; emulated against exact sums (tests/cuda).
//           (q - z) * s in 16 bits would save the scaling's FMA in float32 and lose a bit in 2^8 (bf16).
//           The weight as operand B, outputs along its 8 columns: 8 moves more per 32 inputs and 16 tokens, and twice
//           the mma at M <= 8.
//           Cache hints on the copies of weights are left out: others saw them crash on Hopper and gain nothing.
#pragma once
#include "linear_w4a16_tiles.h"
#include "ptx/words.cuh"
#include "tile/halves.cuh"
#include "tile/int4.cuh"

namespace pennyweight::cuda {

// 8 codes of one output to 4 pairs of q - z. `offset` holds 8 + z in both halves.
template <Half half>
PW_DEVICE void decode(uint32_t word, uint32_t offset, uint32_t (&pair)[4]) {
  constexpr int and_or = (0xf0 & 0xcc) | 0xaa;
  if constexpr (half == Half::f16) {
    const uint32_t low = 0xe400e400u | offset, high = 0xd400d400u | offset << 4;  // -(1032 + z), -(72 + z)
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      pair[i] = ptx::fma_f16x2(ptx::lop3<and_or>(word, 0x000f000fu, 0x64006400u), 0x3c003c00u, low);
      pair[i + 1] = ptx::fma_f16x2(ptx::lop3<and_or>(word, 0x00f000f0u, 0x64006400u), 0x2c002c00u, high);
      word >>= 8;
    }
  } else {
    const uint32_t low = 0xc300c300u | offset;  // -(136 + z)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      pair[i] = ptx::fma_bf16x2(ptx::lop3<and_or>(word >> (4 * i), 0x000f000fu, 0x43004300u), 0x3f803f80u, low);
  }
}

template <class T>
struct W4Block : HalfBlock<T, GemmW4A16> {
  static_assert(T::threads == T::steps * kStepChunks);
  using Base = HalfBlock<T, GemmW4A16>;
  using Base::lane, Base::p, Base::place, Base::shared, Base::tid, Base::warp_n;
  using typename Base::Sums;

  const int stage_bytes;

  __device__ __forceinline__ W4Block(const GemmW4A16& p, const Place& place, unsigned char* shared)
      : Base(p, place, shared), stage_bytes(T::stage_bytes(p)) {}

  // The first of its panels, of the whole weight's.
  __device__ __forceinline__ int64_t panel() const { return static_cast<int64_t>(place.n_tile) * T::panels; }
  __device__ __forceinline__ int64_t all_panels() const { return (p.n + kPanel - 1) / kPanel; }
  // A k tile's place in the ring; turns are counted from the block's first tile.
  __device__ __forceinline__ unsigned char* stage(int turn) const { return shared + turn % T::stages * stage_bytes; }
  // Starts the copies of a k tile into its place in the ring.
  __device__ __forceinline__ void copy_tile(int turn) const {
    unsigned char* to = stage(turn);
    const int64_t k_tile = place.k_begin + turn;
    const uint8_t* from = static_cast<const uint8_t*>(p.weight) + panel() * p.panel_bytes + k_tile * p.tile_bytes;
    this->x_copy.start(to, k_tile * (2 * T::BK));
    copy_codes(to + T::x_bytes, from, k_tile * T::steps);
    if (p.grouped) copy_tails(to + T::x_bytes + T::code_bytes, from + p.scale_offset, k_tile);
  }

  // A thread has one step of 8 inputs in every panel of the tile.
  __device__ __forceinline__ void copy_codes(unsigned char* to, const uint8_t* from, int64_t step0) const {
    const int chunk = tid % kStepChunks, step = tid / kStepChunks;
    const bool has_step = step0 + step < (p.k + 7) / 8;
    const int group = p.grouped ? step >> p.group_shift : 0, within = step - (group << p.group_shift);
    from += group * p.group_bytes + within * (4 * kPanel) + chunk * 16;
    to += 16 * chunk_of_step(step, chunk);  // the swizzle has a period of 4 steps
#pragma unroll
    for (int i = 0; i < T::panels; ++i)
      ptx::copy_async_bytes(to + i * T::steps * (4 * kPanel), from + i * p.panel_bytes,
                            has_step && panel() + i < all_panels() ? 16 : 0);
  }

  // At most 320 bytes for each panel and group of the tile: a warp copies them.
  __device__ __forceinline__ void copy_tails(unsigned char* to, const uint8_t* from, int64_t k_tile) const {
    const int shift = 4 - p.group_shift, chunk = 16 * lane;
    const int groups = static_cast<int>((p.k >> (p.group_shift + 3)) - (k_tile << shift));  // that are left
#pragma unroll 1
    for (int i = tid / 32; i < T::panels << shift; i += T::threads / 32) {
      const int panel = i >> shift, group = i & ((1 << shift) - 1);
      const bool there = this->panel() + panel < all_panels() && group < groups;
      if (chunk < p.tail_bytes)
        ptx::copy_async_bytes(to + i * p.tail_bytes + chunk,
                              from + panel * p.panel_bytes + group * p.group_bytes + chunk, there ? 16 : 0);
    }
  }

  // 8 + z of the lane's four outputs, each in both halves of a word.
  __device__ __forceinline__ void load_zero_points(const unsigned char* tail, uint32_t (&offset)[4]) const {
    const int scales = p.tail_bytes - static_cast<int>(kPanel);
    const uint32_t z = *reinterpret_cast<const uint32_t*>(tail + scales + warp_n % kPanel + (lane >> 2) * 4);
    const uint32_t moved = (z & 0x0f0f0f0fu) ^ 0x08080808u;
#pragma unroll
    for (int o = 0; o < 4; ++o) offset[o] = ptx::pick_bytes(moved, 0, 0x4040u + 0x0101u * o);
  }

  // acc += scale * sums, sums = 0
  __device__ __forceinline__ void scale_group(const unsigned char* tail, Sums& sums, Sums& acc) const {
    float scale[4];
    const int bytes = p.scale_dtype == DType::f32 ? 4 : 2;
    load_scales(tail + (warp_n % kPanel + (lane >> 2) * 4) * bytes, p.scale_dtype, scale);
#pragma unroll
    for (int i = 0; i < T::tokens; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          acc[i][j][c] = fma_f32(sums[i][j][c], scale[2 * j + c / 2], acc[i][j][c]);
          sums[i][j][c] = 0.0f;
        }
  }

  // sums += (q - z) . x over the 32 inputs of a block
  __device__ __forceinline__ void multiply_block(const unsigned char* x, const unsigned char* codes, int block,
                                                 const uint32_t (&offset)[4], Sums& sums) const {
    Four eight[T::tokens];
    this->load_x(x, block, eight);
    const int step = warp_n / kPanel * T::steps + block * 4 + (lane & 3);
    const Four four =
        *reinterpret_cast<const Four*>(codes + 16 * chunk_of_step(step, warp_n % kPanel / 4 + (lane >> 2)));
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint32_t low[4], high[4];
      decode<T::half>(four.word[2 * j], offset[2 * j], low);
      decode<T::half>(four.word[2 * j + 1], offset[2 * j + 1], high);
      this->multiply_tile(low, high, eight, j, sums);
    }
  }

  __device__ __forceinline__ void multiply(int turn, uint32_t (&offset)[4], Sums& sums, Sums& acc) const {
    const unsigned char* x = stage(turn);
    const unsigned char* codes = x + T::x_bytes;
    const unsigned char* tail = codes + T::code_bytes + warp_n / kPanel * p.tail_groups() * p.tail_bytes;
    const int within = (1 << (p.group_shift - 2)) - 1;  // a group's blocks of 32 inputs, less one
#pragma unroll
    for (int block = 0; block < T::blocks; ++block) {
      if (p.zero_points && p.grouped && (block & within) == 0) load_zero_points(tail, offset);
      multiply_block(x, codes, block, offset, sums);
      if (p.grouped && ((block + 1) & within) == 0) {
        scale_group(tail, sums, acc);
        tail += p.tail_bytes;
      }
    }
  }

  // Of the one group that is the channel: in global memory, behind the panel's codes.
  __device__ __forceinline__ const unsigned char* channel_tail() const {
    return static_cast<const uint8_t*>(p.weight) + (panel() + warp_n / kPanel) * p.panel_bytes + p.scale_offset;
  }
  __device__ __forceinline__ bool has_panel() const { return panel() + warp_n / kPanel < all_panels(); }
};

template <class T>
__global__ void __launch_bounds__(T::threads, T::blocks_per_sm) linear_w4a16_sm80(const GemmW4A16 p) {
  PW_DYNAMIC_SHARED(shared);
  const W4Block<T> block(p, place_of(p.walk, blockIdx.x), shared);
  typename W4Block<T>::Sums sums = {};                                        // (32, WM) of the group at hand
  typename W4Block<T>::Sums acc = {};                                         // scaled
  uint32_t offset[4] = {0x00080008u, 0x00080008u, 0x00080008u, 0x00080008u};  // 8 + z

  if (!p.grouped && p.zero_points && block.has_panel()) block.load_zero_points(block.channel_tail(), offset);
  run_ring<T::stages>(
      block.turns(), [&](int i) { block.copy_tile(i); }, [&](int i) { block.multiply(i, offset, sums, acc); });
  if (!p.grouped && block.has_panel()) block.scale_group(block.channel_tail(), sums, acc);
  block.store(acc);
}

template <class T>
int launch_tile(const GemmW4A16& p, void* stream) {
  return launch(linear_w4a16_sm80<T>, dim3(p.walk.blocks()), dim3(T::threads), T::shared_bytes(p), stream, p);
}

}  // namespace pennyweight::cuda
