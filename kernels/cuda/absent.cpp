// SPDX-License-Identifier: Apache-2.0
// absent.cpp: stands in for device.cu and ops.cpp where the library is built without CUDA.
#include <cstdio>

#include "table.h"

namespace pennyweight {
namespace {

constexpr const char* kReason = "built without CUDA";

}  // namespace

CudaState cuda_state() {
  CudaState state;
  std::snprintf(state.reason, sizeof state.reason, "%s", kReason);
  return state;
}

Status find_card(int index, Card*) {
  Status status;
  status.code = Code::device;
  std::snprintf(status.message, sizeof status.message, "cuda:%d cannot be used: pennyweight was %s", index, kReason);
  return status;
}

const CudaOp* cuda::find_op(OpId) { return nullptr; }
const char* cuda::error_text(int) { return kReason; }

}  // namespace pennyweight
