// SPDX-License-Identifier: Apache-2.0
// device.cu: what the linked CUDA runtime and this machine's driver say of themselves.
#include <cuda_runtime_api.h>

#include <cstdio>

#include "pennyweight/cuda.h"

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

}  // namespace pennyweight
