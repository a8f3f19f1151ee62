// SPDX-License-Identifier: Apache-2.0
// bytes.cuh: 4, 8 or 16 neighbouring bytes of a row, of which the last may not exist; rows of a matrix in such pieces.
//
//   row   ┌────────┬────────┬────────┬───           a thread has the same piece of rows y, y + gridDim.y, ...: threads
//    0    │ piece 0│ piece 1│ piece 2│ ...          side by side have pieces side by side
//    1    └────────┴────────┴────────┴───
#pragma once
#include "tile/epilogue.cuh"

namespace pennyweight::cuda {

// `count` bytes from `from`, zeros after. `vector`: whole pieces are aligned to their size.
template <int kWords>
PW_DEVICE void load_bytes(const void* from, int count, bool vector, uint32_t (&word)[kWords]) {
  if (count == 4 * kWords && vector) {
    if constexpr (kWords == 4) {
      const Four four = *static_cast<const Four*>(from);
#pragma unroll
      for (int i = 0; i < 4; ++i) word[i] = four.word[i];
    } else if constexpr (kWords == 2) {
      const Two two = *static_cast<const Two*>(from);
      word[0] = two.word[0];
      word[1] = two.word[1];
    } else {
      word[0] = *static_cast<const uint32_t*>(from);
    }
    return;
  }
  const uint8_t* byte = static_cast<const uint8_t*>(from);
#pragma unroll
  for (int i = 0; i < kWords; ++i) word[i] = 0;
#pragma unroll
  for (int i = 0; i < 4 * kWords; ++i)
    if (i < count) word[i / 4] |= static_cast<uint32_t>(byte[i]) << (8 * (i % 4));
}

template <int kWords>
PW_DEVICE void store_bytes(void* to, int count, bool vector, const uint32_t (&word)[kWords]) {
  if (count == 4 * kWords && vector) {
    if constexpr (kWords == 4)
      *static_cast<Four*>(to) = {{word[0], word[1], word[2], word[3]}};
    else if constexpr (kWords == 2)
      *static_cast<Two*>(to) = {{word[0], word[1]}};
    else
      *static_cast<uint32_t*>(to) = word[0];
    return;
  }
  uint8_t* byte = static_cast<uint8_t*>(to);
#pragma unroll
  for (int i = 0; i < 4 * kWords; ++i)
    if (i < count) byte[i] = static_cast<uint8_t>(word[i / 4] >> (8 * (i % 4)));
}

// Of a row's `left` elements, those in a piece of `most`.
PW_DEVICE int piece_count(int64_t left, int most) { return left < most ? static_cast<int>(left) : most; }

constexpr int kPieceThreads = 128;

// f(row, piece), over this thread's.
template <class F>
PW_DEVICE void for_pieces(int64_t rows, int64_t pieces, F f) {
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kPieceThreads + threadIdx.x;
  if (piece >= pieces) return;
#pragma unroll 1
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) f(row, piece);
}

static inline dim3 piece_grid(int64_t rows, int64_t pieces) {
  return dim3(static_cast<unsigned>((pieces + kPieceThreads - 1) / kPieceThreads),
              static_cast<unsigned>(rows < 65535 ? rows : 65535));
}

// Whether pieces of `bytes` bytes are aligned in rows that are `stride` bytes apart.
static inline bool pieces_aligned(const void* p, int64_t stride, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0 && stride % bytes == 0;
}

}  // namespace pennyweight::cuda
