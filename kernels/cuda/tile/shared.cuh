// SPDX-License-Identifier: Apache-2.0
// shared.cuh: how tiles of operands lie in shared memory, in chunks of 16 bytes without bank conflicts, and how rows of
// them get there.
//
// A warp reads and writes shared memory 128 bytes at a time; these must be 8 different chunks modulo 8. C chunks a row:
//
//   Rows          lanes read one chunk of 8 rows (ldmatrix)        chunk c of row r sits at c ^ (r % 8) where C = 8; at
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
  static_assert(chunks == 4 || chunks == 8);
  static constexpr int row_chunks = chunks, period = 8;
  static PW_HD int place(int row, int chunk) {
    return row * chunks + (chunks == 8 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3));
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

// Starts copies of `rows` rows by all `threads` of a block. `from`: the tile's first byte in global memory, `stride`
// from row to row in bytes; rows from row_count on and bytes from byte_count on do not exist: they become zeros.
template <class Layout, int rows, int threads>
PW_DEVICE void copy_rows(unsigned char* to, const unsigned char* from, int64_t stride, int64_t row_count,
                         int64_t byte_count, int thread) {
  constexpr int chunks = Layout::row_chunks, at_once = threads / chunks;
  static_assert(threads % chunks == 0 && at_once % Layout::period == 0 && (rows % at_once == 0 || rows < at_once));
  const int chunk = thread % chunks, first = thread / chunks, source = Layout::source(first);
  if (rows < at_once && first >= rows) return;
  const int64_t left = byte_count - chunk * 16;
  const int bytes = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
  const int there = row_count < rows ? static_cast<int>(row_count) : rows;
  from += source * stride + chunk * 16;
  to += 16 * Layout::place(first, chunk);
#pragma unroll
  for (int i = 0; i < (rows + at_once - 1) / at_once; ++i) {
    const int more = Layout::source(i * at_once);  // the order permutes bits of the row's number
    ptx::copy_async_bytes(to + i * at_once * (16 * chunks), from + more * stride, source + more < there ? bytes : 0);
  }
}

}  // namespace pennyweight::cuda
