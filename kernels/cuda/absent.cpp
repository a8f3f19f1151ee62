// SPDX-License-Identifier: Apache-2.0
// absent.cpp: stands in for device.cu where the library is built without CUDA.
#include <cstdio>

#include "pennyweight/cuda.h"

namespace pennyweight {

CudaState cuda_state() {
  CudaState state;
  std::snprintf(state.reason, sizeof state.reason, "built without CUDA");
  return state;
}

}  // namespace pennyweight
