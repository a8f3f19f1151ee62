// SPDX-License-Identifier: Apache-2.0
// shared.cuh: how tiles of x and of packed weights lie in shared memory, in chunks of 16 bytes without bank conflicts.
//
// A warp reads shared memory 8 lanes and 128 bytes at a time; these must be 8 different chunks modulo 8.
//
// Rows of x, C chunks each:       lanes read one chunk of 8 rows (ldmatrix):        chunk c of row r sits at
//                                 C = 8, 16: c ^ (r % 8); C = 4: c ^ (r / 2 % 4), since two rows make 128 bytes
// Rows of x, read in pairs:       lanes read chunks 4b .. 4b + 3 of two rows:       c ^ 4 (r % 2)
// Steps of a weight panel:        64 outputs, 16 chunks of 4 dwords; lanes read
//                                 chunks 2i, 2i + 1 of 4 steps:                     c ^ 2 (s % 4)
#pragma once
#include "runtime.cuh"

namespace pennyweight::cuda {

template <int chunks>
PW_DEVICE int chunk_of_row(int row, int chunk) {
  static_assert(chunks == 4 || chunks % 8 == 0);
  return row * chunks + (chunks == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7));
}

template <int chunks>
PW_DEVICE int chunk_of_row_pair(int row, int chunk) {
  static_assert(chunks % 8 == 0);
  return row * chunks + (chunk ^ (row & 1) * 4);
}

constexpr int kStepChunks = 16;  // of a panel's step: 64 outputs, a dword each

PW_DEVICE int chunk_of_step(int step, int chunk) { return step * kStepChunks + (chunk ^ (step & 3) * 2); }

}  // namespace pennyweight::cuda
