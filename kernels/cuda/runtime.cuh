// SPDX-License-Identifier: Apache-2.0
// runtime.cuh: what every kernel file includes: CUDA's language, a launch, dynamic shared memory.
//
// Each .cu compiles twice: by nvcc for cards, and with PW_EMULATED as plain C++ against tests/emulator, where a CUDA
// thread is a fiber. Hence the rules for kernel source: inline PTX only in ptx/, launches by launch(), dynamic shared
// memory by PW_DYNAMIC_SHARED, no block waits for another, no cuda_fp16.h and its like (16-bit floats are uint16_t and
// packed pairs uint32_t, converted by ptx/convert.cuh).
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(PW_EMULATED)
#include "emulator.h"
#else
#include <cuda_runtime.h>
#endif

#define PW_DEVICE static __device__ __forceinline__

#if defined(PW_EMULATED)
#define PW_DYNAMIC_SHARED(name) unsigned char* const name = ::pennyweight::emulator::here.shared
#else
#define PW_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#endif

namespace pennyweight::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// Launches kernel(args...); shared_bytes of dynamic shared memory, beyond 48 KB too. Returns what the launch itself
// came to (a cudaError_t), not an earlier call's error.
template <class... Parameters, class... Arguments>
static int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, void* stream,
                  Arguments... args) {
#if defined(PW_EMULATED)
  return ::pennyweight::emulator::launch(grid, block, shared_bytes, stream, [&] { kernel(args...); });
#else
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) {
      cudaGetLastError();  // leaves no error behind for the next caller
      return error;
    }
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, Parameters(args)...);
  if (error != cudaSuccess) cudaGetLastError();
  return error;
#endif
}

}  // namespace pennyweight::cuda
