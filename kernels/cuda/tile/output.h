// SPDX-License-Identifier: Apache-2.0
// output.h: where a kernel's tiles of y go.
#pragma once
#include "pennyweight/numerics.h"

namespace pennyweight::cuda {

struct Output {
  void* y;
  int64_t stride;
  DType dtype;
  bool vector;  // every eighth element is aligned for the widest store
};

// Whether stores of eight elements are aligned: at most 16 bytes each.
static inline bool aligned_for_vectors(const void* y, int64_t stride) {
  return reinterpret_cast<uintptr_t>(y) % 16 == 0 && stride % 8 == 0;
}

}  // namespace pennyweight::cuda
