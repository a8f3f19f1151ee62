// SPDX-License-Identifier: Apache-2.0
// device.cu: what the linked CUDA runtime and this machine's driver say of themselves and of the cards.
#include <cstdio>
#include <map>
#include <mutex>

#include "runtime.cuh"
#include "table.h"

namespace pennyweight {

CudaState cuda_state() {
  CudaState state;
  state.built = true;
  std::snprintf(state.architectures, sizeof state.architectures, "%s", PW_CUDA_ARCHS);
  cudaRuntimeGetVersion(&state.runtime_version);
  cudaDriverGetVersion(&state.driver_version);  // 0 where libcuda.so.1 is missing, which is no error
  const cudaError_t error = cudaGetDeviceCount(&state.device_count);
  if (error == cudaSuccess) return state;
  state.device_count = 0;
  std::snprintf(state.reason, sizeof state.reason, "%s",
                state.driver_version ? cudaGetErrorString(error) : "no NVIDIA driver (libcuda.so.1) was found");
  cudaGetLastError();  // leaves no error behind for the next caller
  return state;
}

namespace {

__global__ void nothing() {}

// Whether the library has machine code, or PTX that the driver can compile, for the current device.
bool has_image() {
#if defined(PW_EMULATED)
  return true;
#else
  cudaFuncAttributes attributes;
  const bool has = cudaFuncGetAttributes(&attributes, nothing) == cudaSuccess;
  cudaGetLastError();
  return has;
#endif
}

Status ask(int index, Card* card) {
  Status status;
  const CudaState state = cuda_state();
  int major = 0, minor = 0, shared = 0;
  if (index >= state.device_count) {
    status.code = Code::device;
    std::snprintf(status.message, sizeof status.message, "cuda:%d cannot be used: %s", index,
                  *state.reason ? state.reason : "there is no such card");
    return status;
  }
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
  cudaDeviceGetAttribute(&card->multiprocessors, cudaDevAttrMultiProcessorCount, index);
  cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  card->compute = 10 * major + minor;
  card->shared_bytes = shared;
  if (has_image()) return status;
  status.code = Code::device;
  std::snprintf(status.message, sizeof status.message,
                "cuda:%d is sm_%d, for which nothing was built; built: %s; build again with "
                "PW_CUDA_ARCHS=%d-real",
                index, card->compute, state.architectures, card->compute);
  return status;
}

}  // namespace

Status find_card(int index, Card* card) {
  struct Answer {
    Status status;
    Card card;
  };
  static std::mutex mutex;
  static std::map<int, Answer> answers;
  const std::lock_guard<std::mutex> lock(mutex);
  auto found = answers.find(index);
  if (found == answers.end()) {
    Answer answer;
    answer.status = ask(index, &answer.card);
    found = answers.emplace(index, answer).first;
  }
  *card = found->second.card;
  return found->second.status;
}

const char* cuda::error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace pennyweight
