// SPDX-License-Identifier: Apache-2.0
// aligned.h: what copies of 16 bytes ask of a buffer.
#pragma once
#include <cstdint>

namespace pennyweight::cuda {

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
// Whether every row begins at a multiple of 16 bytes; `stride` in elements of `size` bytes.
inline bool rows_aligned(const void* p, int64_t rows, int64_t stride, int64_t size) {
  return aligned(p) && (rows <= 1 || stride * size % 16 == 0);
}
// Whether rows begin less than 4 GiB apart, as kernels count.
inline bool rows_near(int64_t rows, int64_t stride, int64_t size) {
  return rows <= 1 || (stride >= 0 && stride < (int64_t{1} << 32) / size);
}

}  // namespace pennyweight::cuda
