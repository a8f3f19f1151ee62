// SPDX-License-Identifier: Apache-2.0
// emulator.h: CUDA's language on the host, for tests. Each thread of a block is a fiber, blocks run one after another.
//
// Barriers, shuffles and warp-wide instructions are points where fibers wait for each other; who runs next is decided
// by a seed, so that a missing barrier shows as a wrong result, under ThreadSanitizer as a race at any seed. What needs
// CUDA's own headers is declared here, in CUDA's names: no toolkit is needed.
#pragma once
#include <math.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

// ---- of the runtime, what kernels/cuda uses: two emulated cards, alike
enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaDeviceAttr : int {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);

namespace pennyweight::emulator {

struct Options {
  // 0: threads in order, each as far as it can; 1: in reverse; odd: another at random at every stop, copies and loads
  // included; even: one runs far ahead of the others. Asynchronous copies arrive at once or when waited for (0 and 1:
  // when waited for; else at random, each).
  uint64_t seed = 0;
  int compute = 80;                  // 10 major + minor
  int64_t shared_bytes = 99 * 1024;  // that a block may have
};
Options& options();

// The thread that runs now.
struct Here {
  dim3 thread, block, block_size, grid;
  unsigned lane = 0;
  unsigned char* shared = nullptr;
};
extern Here here;

// Runs body once per thread. Limits of the card that are passed give CUDA's error; what no card survives (a deadlock, a
// barrier that some threads never reach) throws std::runtime_error.
int launch(dim3 grid, dim3 block, size_t shared_bytes, void* stream, const std::function<void()>& body);

[[noreturn]] void fail(const std::string& what);  // throws from launch(), with block and thread
void check_aligned(const char* instruction, const void* p, size_t bytes);
void may_switch();                            // another thread may run first
void note_read(const void* p, size_t bytes);  // for ThreadSanitizer: this thread reads here
void note_write(void* p, size_t bytes);

enum class Barrier { plain, all, any, count };
int barrier(Barrier kind, bool predicate);

// Waits until every lane in `mask` is here with the same instruction; the last one runs all(arguments) for all 32.
void collective(const char* instruction, unsigned mask, void* argument, void (*all)(void* const* arguments));
inline void whole_warp(const char* instruction, void* argument, void (*all)(void* const* arguments)) {
  collective(instruction, ~0u, argument, all);
}

void copy_async(void* shared, const void* global, int bytes);  // 16 bytes, of which `bytes` are read and the rest 0
void commit_copies();
void wait_copies(int pending);

template <class T>
struct Exchange {
  T value, received;
  int source;  // a lane, or -1: nothing
  unsigned mask;
};
template <class T>
void exchange(void* const* lanes) {
  for (int lane = 0; lane < 32; ++lane) {
    if (!lanes[lane]) continue;
    auto* own = static_cast<Exchange<T>*>(lanes[lane]);
    if (own->source < 0) continue;
    if (!lanes[own->source]) fail("a shuffle reads a lane that is not in its mask");
    own->received = static_cast<const Exchange<T>*>(lanes[own->source])->value;
  }
}
template <class T>
T shuffle(const char* name, unsigned mask, T value, int source) {
  Exchange<T> own{value, value, source, mask};
  collective(name, mask, &own, exchange<T>);
  return own.received;
}

struct Vote {
  unsigned value, result;
};

}  // namespace pennyweight::emulator

#define threadIdx (::pennyweight::emulator::here.thread)
#define blockIdx (::pennyweight::emulator::here.block)
#define blockDim (::pennyweight::emulator::here.block_size)
#define gridDim (::pennyweight::emulator::here.grid)

inline void __syncthreads() { pennyweight::emulator::barrier(pennyweight::emulator::Barrier::plain, false); }
inline int __syncthreads_or(int p) { return pennyweight::emulator::barrier(pennyweight::emulator::Barrier::any, p); }
inline int __syncthreads_and(int p) { return pennyweight::emulator::barrier(pennyweight::emulator::Barrier::all, p); }
inline int __syncthreads_count(int p) {
  return pennyweight::emulator::barrier(pennyweight::emulator::Barrier::count, p);
}
inline void __syncwarp(unsigned mask = ~0u) { pennyweight::emulator::shuffle("syncwarp", mask, 0, -1); }
template <class T>
T __shfl_sync(unsigned mask, T v, int source) {
  return pennyweight::emulator::shuffle("shfl.idx", mask, v, source & 31);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits) {
  return pennyweight::emulator::shuffle("shfl.bfly", mask, v,
                                        static_cast<int>(pennyweight::emulator::here.lane) ^ bits);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by) {
  const unsigned from = pennyweight::emulator::here.lane + by;
  return pennyweight::emulator::shuffle("shfl.down", mask, v, from < 32 ? static_cast<int>(from) : -1);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by) {
  const int from = static_cast<int>(pennyweight::emulator::here.lane) - static_cast<int>(by);
  return pennyweight::emulator::shuffle("shfl.up", mask, v, from >= 0 ? from : -1);
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned v) {
  using pennyweight::emulator::Vote;
  Vote own{v, 0};
  pennyweight::emulator::collective("redux.max", mask, &own, [](void* const* lanes) {
    unsigned most = 0;
    for (int i = 0; i < 32; ++i)
      if (lanes[i]) most = std::max(most, static_cast<const Vote*>(lanes[i])->value);
    for (int i = 0; i < 32; ++i)
      if (lanes[i]) static_cast<Vote*>(lanes[i])->result = most;
  });
  return own.result;
}
inline uint32_t atomicOr(uint32_t* p, uint32_t bits) { return __atomic_fetch_or(p, bits, __ATOMIC_RELAXED); }
template <class T>
T __ldg(const T* p) {
  pennyweight::emulator::may_switch();
  return *p;
}
inline void __trap() { pennyweight::emulator::fail("a trap"); }
inline float __uint_as_float(uint32_t v) { return __builtin_bit_cast(float, v); }
inline uint32_t __float_as_uint(float v) { return __builtin_bit_cast(uint32_t, v); }
inline float __int2float_rn(int v) { return static_cast<float>(v); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
using std::max;
using std::min;
