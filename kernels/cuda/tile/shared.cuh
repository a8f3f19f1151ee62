// SPDX-License-Identifier: Apache-2.0
// shared.cuh: how tiles of operands lie in shared memory, in chunks of 16 bytes without bank conflicts, and how rows of
// them get there.
//
// A warp reads and writes shared memory 128 bytes at a time; these must be 8 different chunks modulo 8. C chunks a row:
//
//   Rows          lanes read one chunk of 8 rows (ldmatrix)        chunk c of row r sits at c ^ (r % 8), but at
//                                                                  c ^ (r / 2 % 4) where C = 4: two rows make 128 bytes
//   RowPairs      lanes read chunks 4b .. 4b + 3 of two rows       c ^ 4 (r % 2)
//   HalfChunks    lanes read 8 bytes of chunks 2b, 2b + 1 of       c ^ 2 (r / 2 % 2), C = 4
//                 four rows
//   a panel's     64 outputs, 16 chunks of 4 dwords; lanes read    c ^ 2 (s % 4)
//   step s        chunks 2i, 2i + 1 of 4 steps
//
// Outputs lie in another order than they come, 32 by 32: row 8j + g holds output 4g + j. The g-th row (or column) of a
// fragment's tile j is then output 4g + j, and what a lane takes from four tiles are neighbouring outputs, although it
// reads 8 neighbouring rows at a time.
#pragma once
#include "ptx/copy.cuh"

namespace pennyweight::cuda {

PW_HD constexpr int output_of_row(int row) { return (row & ~31) + (row & 7) * 4 + (row >> 3 & 3); }

template <int chunks>
struct Rows {
  static_assert(chunks == 4 || chunks % 8 == 0);
  static constexpr int row_chunks = chunks, period = 8;
  static PW_HD int place(int row, int chunk) {
    return row * chunks + (chunks == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7));
  }
  static PW_HD constexpr int source(int row) { return row; }
};

template <int chunks>
struct RowPairs {
  static_assert(chunks % 8 == 0);
  static constexpr int row_chunks = chunks, period = 2;
  static PW_HD int place(int row, int chunk) { return row * chunks + (chunk ^ (row & 1) * 4); }
  static PW_HD constexpr int source(int row) { return row; }
};

struct HalfChunks {
  static constexpr int row_chunks = 4, period = 4;
  static PW_HD int place(int row, int chunk) { return row * 4 + (chunk ^ (row & 2)); }
  static PW_HD constexpr int source(int row) { return row; }
};

// Rows of a weight, in the order of fragments.
template <class Layout>
struct Outputs : Layout {
  static PW_HD constexpr int source(int row) { return output_of_row(row); }
};

constexpr int kStepChunks = 16;  // of a panel's step: 64 outputs, a dword each

PW_DEVICE int chunk_of_step(int step, int chunk) { return step * kStepChunks + (chunk ^ (step & 3) * 2); }

// How a thread of `threads` copies its pieces of `rows` rows, k tile by k tile. Rows and bytes that do not exist are
// not read: what they would have been a row keeps to itself, so it stays as it is, but the inputs past K must be zeros.
template <class Layout, int rows, int threads>
struct RowCopy {
  static constexpr int chunks = Layout::row_chunks, at_once = threads / chunks;
  static_assert(threads % chunks == 0 && at_once % Layout::period == 0 && (rows % at_once == 0 || rows < at_once));

  const unsigned char* from;  // its first row
  int64_t bytes;              // of a row from its chunk on
  uint32_t stride;            // from row to row
  int to, there;              // its place in the tile; how many rows there are from its first one on

  // `operand` has row_count rows of row_bytes bytes; the tile begins at row0.
  __device__ __forceinline__ RowCopy(const void* operand, int64_t stride, int64_t row0, int64_t row_count,
                                     int64_t row_bytes, int thread)
      : stride(static_cast<uint32_t>(stride)) {
    const int chunk = thread % chunks, first = thread / chunks, source = Layout::source(first);
    const int64_t left = row_count - row0;
    from = static_cast<const unsigned char*>(operand) + (row0 + source) * stride + chunk * 16;
    bytes = row_bytes - chunk * 16;
    to = 16 * Layout::place(first, chunk);
    there = first < rows ? (left < rows ? static_cast<int>(left) : rows) - source : 0;
  }

  // `more` rows on: the order permutes bits of a row's number, so that it takes sums apart.
  __device__ __forceinline__ bool has(int more) const { return more < there; }

  // Starts the copies of the tile that begins `at` bytes into the rows.
  __device__ __forceinline__ void start(unsigned char* tile, int64_t at) const {
    const int64_t left = bytes - at;
    if (left >= 16)
      copy(tile + to, from + at, [](void* to, const void* from) { ptx::copy_async_all(to, from); });
    else
      copy(tile + to, from + at, [count = left > 0 ? static_cast<int>(left) : 0](void* to, const void* from) {
        ptx::copy_async_bytes(to, from, count);
      });
  }

 private:
  template <class Copy>
  __device__ __forceinline__ void copy(unsigned char* first, const unsigned char* source, Copy copy_16) const {
#pragma unroll
    for (int i = 0; i < (rows + at_once - 1) / at_once; ++i) {
      const int more = Layout::source(i * at_once);
      if (has(more)) copy_16(first + i * at_once * (16 * chunks), source + static_cast<uint64_t>(more) * stride);
    }
  }
};

}  // namespace pennyweight::cuda
