// SPDX-License-Identifier: Apache-2.0
// output.h: where a kernel's tiles of y go, and what becomes of its sums on the way.
#pragma once
#include "pennyweight/numerics.h"

namespace pennyweight::cuda {

struct Output {
  void* y;
  int64_t stride;
  DType dtype;
  bool vector;  // every eighth element is aligned for the widest store
};

// y = (sum * row_scale) * col_scale + bias; a null pointer leaves its step out. Integer sums for y of int32 are bare.
struct Epilogue {
  const float* row_scale;
  const float* col_scale;
  const void* bias;  // of y's dtype
  Output y;
};

// Whether stores of eight elements are aligned: at most 16 bytes each.
static inline bool aligned_for_vectors(const void* y, int64_t stride) {
  return reinterpret_cast<uintptr_t>(y) % 16 == 0 && stride % 8 == 0;
}

}  // namespace pennyweight::cuda
