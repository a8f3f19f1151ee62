// SPDX-License-Identifier: Apache-2.0
// rows.cuh: a row that a group of threads reads once and keeps, eight neighbouring elements ("a chunk") at a time.
//
//   chunk   0        1        2    ...        a group of T threads: thread t has chunks t, t + T, t + 2T, ...
//          [0..7]   [8..15]  [16..23] ...     the first kKept of them in registers, the others in shared memory, in
//           t=0      t=1      t=2             slots that no other thread touches, so that no barrier is needed
//
// 16-bit elements: a chunk is one load of 16 bytes; float32: two. Where a row is not 16-byte aligned or K no multiple
// of 8, elements are loaded and stored one by one, and lanes past K hold zeros.
#pragma once
#include "ptx/convert.cuh"
#include "ptx/copy.cuh"
#include "runtime.cuh"

namespace pennyweight::cuda {

constexpr int kChunk = 8;

template <DType dtype>
struct Packed {
  uint32_t words[dtype == DType::f32 ? 8 : 4];
};

// ---- eight values of a dtype, packed and as float32

template <DType dtype>
PW_DEVICE void unpack(const Packed<dtype>& packed, float (&v)[kChunk]) {
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    if constexpr (dtype == DType::f32)
      v[i] = bits_f32(packed.words[i]);
    else if constexpr (dtype == DType::bf16)
      v[i] = bits_f32(i % 2 ? packed.words[i / 2] & 0xffff0000u : packed.words[i / 2] << 16);
    else
      v[i] = ptx::f32_of_f16(static_cast<uint16_t>(packed.words[i / 2] >> 16 * (i % 2)));
  }
}

// Rounds to the dtype.
template <DType dtype>
PW_DEVICE void pack(const float (&v)[kChunk], Packed<dtype>& packed) {
  if constexpr (dtype == DType::f32) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) packed.words[i] = f32_bits(v[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kChunk / 2; ++i)
      packed.words[i] =
          dtype == DType::bf16 ? ptx::bf16x2_of_f32(v[2 * i], v[2 * i + 1]) : ptx::f16x2_of_f32(v[2 * i], v[2 * i + 1]);
  }
}

// v as values of the dtype
template <DType dtype>
PW_DEVICE void round_all(float (&v)[kChunk]) {
  if constexpr (dtype != DType::f32) {
    Packed<dtype> packed;
    pack<dtype>(v, packed);
    unpack<dtype>(packed, v);
  }
}

// ---- memory. kWhole: 16-byte aligned and all eight are inside.

template <DType dtype>
PW_DEVICE const char* element(const void* base, int64_t index) {
  return static_cast<const char*>(base) + index * (dtype == DType::f32 ? 4 : 2);
}

// Elements [at, at + 8) of a row of k.
template <DType dtype, bool kOnce, bool kWhole>
PW_DEVICE Packed<dtype> load_chunk(const void* row, int64_t at, int64_t k) {
  Packed<dtype> out;
  if constexpr (kWhole) {
    uint4* words = reinterpret_cast<uint4*>(out.words);
#pragma unroll
    for (int i = 0; i < int(sizeof(out) / 16); ++i) {
      const char* from = element<dtype>(row, at) + 16 * i;
      words[i] = kOnce ? ptx::load_once(from) : ptx::load_shared_by_all(from);
    }
  } else {
#pragma unroll
    for (int i = 0; i < int(sizeof(out) / 4); ++i) {
      if constexpr (dtype == DType::f32) {
        out.words[i] = at + i < k ? __ldg(static_cast<const uint32_t*>(row) + at + i) : 0u;
      } else {
        const uint16_t* from = static_cast<const uint16_t*>(row) + at + 2 * i;
        const uint32_t low = at + 2 * i < k ? __ldg(from) : 0u, high = at + 2 * i + 1 < k ? __ldg(from + 1) : 0u;
        out.words[i] = low | high << 16;
      }
    }
  }
  return out;
}

template <DType dtype, bool kWhole>
PW_DEVICE void store_chunk(void* row, int64_t at, int64_t k, const Packed<dtype>& packed) {
  if constexpr (kWhole) {
    char* to = const_cast<char*>(element<dtype>(row, at));
    const uint32_t* words = packed.words;
#pragma unroll
    for (int i = 0; i < int(sizeof(packed) / 4); i += 4)
      ptx::store_vector(to + 4 * i, make_uint4(words[i], words[i + 1], words[i + 2], words[i + 3]));
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (at + i >= k) break;
      if constexpr (dtype == DType::f32)
        static_cast<uint32_t*>(row)[at + i] = packed.words[i];
      else
        static_cast<uint16_t*>(row)[at + i] = static_cast<uint16_t>(packed.words[i / 2] >> 16 * (i % 2));
    }
  }
}

// Eight codes, one byte each; the row of codes is 8-byte aligned for kWhole.
template <bool kWhole>
PW_DEVICE void store_codes(uint8_t* row, int64_t at, int64_t k, uint2 codes) {
  if constexpr (kWhole) {
    *reinterpret_cast<uint2*>(row + at) = codes;
  } else {
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
      if (at + i < k) row[at + i] = static_cast<uint8_t>((i < 4 ? codes.x : codes.y) >> 8 * (i % 4));
  }
}

// ---- a group of threads: a warp, or a whole block

// All threads of the group call it; every one gets the result. `slots`: shared memory of 32 words for a block, one set
// per call; the barrier inside also separates nothing else.
template <bool kWarp>
PW_DEVICE uint32_t group_max(uint32_t v, uint32_t* slots) {
  v = __reduce_max_sync(kFullWarp, v);
  if constexpr (!kWarp) {
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = v;
    __syncthreads();
    const unsigned lane = threadIdx.x % 32;
    v = __reduce_max_sync(kFullWarp, lane < blockDim.x / 32 ? slots[lane] : 0u);
  }
  return v;
}

template <bool kWarp>
PW_DEVICE float group_sum(float v, uint32_t* slots) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(kFullWarp, v, bits);
  if constexpr (!kWarp) {
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = f32_bits(v);
    __syncthreads();
    const unsigned lane = threadIdx.x % 32;
    v = lane < blockDim.x / 32 ? bits_f32(slots[lane]) : 0.0f;
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(kFullWarp, v, bits);
  }
  return v;
}

// ---- which way rows move

// Whether all rows of an operand begin on 16 bytes.
static bool aligned(const void* p, int64_t stride, DType dtype) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride * dtype_bytes(dtype) % 16 == 0;
}

// f(type) with the dtype, and whether rows move whole, as constants.
template <DType dtype, bool whole>
struct Kind {
  static constexpr DType kType = dtype;
  static constexpr bool kWhole = whole;
};
template <bool whole, class F>
static int with_dtype(DType dtype, F f) {
  if (dtype == DType::f32) return f(Kind<DType::f32, whole>());
  return dtype == DType::f16 ? f(Kind<DType::f16, whole>()) : f(Kind<DType::bf16, whole>());
}
template <class F>
static int with_kind(DType dtype, bool whole, F f) {
  return whole ? with_dtype<true>(dtype, f) : with_dtype<false>(dtype, f);
}

}  // namespace pennyweight::cuda
