// SPDX-License-Identifier: Apache-2.0
// harness.h: how the kernels' own tests are written. They compile twice, as the kernels do: against the emulator, and
// by nvcc for a card.
//
//   PW_CASE(name) { ... check(...); }     runs once per seed; a test fails where a check does or anything is thrown
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(PW_EMULATED)
#include <sys/mman.h>
#endif

#include "runtime.cuh"
#include "pennyweight/cuda.h"
#include "pennyweight/numerics.h"

namespace pennyweight::tests {

#if !defined(PW_EMULATED)
inline void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}
#endif

// `count` elements that host and card both see, exactly as large as asked for and full of a marker.
template <class T>
struct Buffer {
  T* data = nullptr;
  size_t count;

  explicit Buffer(size_t count) : count(count) {
    const size_t bytes = count * sizeof(T) + (count == 0);
#if defined(PW_EMULATED)
    // Where sanitizers watch, the end of the buffer is the end of the allocation.
    if (posix_memalign(reinterpret_cast<void**>(&data), 256, bytes)) throw std::bad_alloc();
#else
    check_cuda(cudaMallocManaged(&data, bytes));
#endif
    std::memset(static_cast<void*>(data), 0x5a, count * sizeof(T));
  }
  ~Buffer() {
#if defined(PW_EMULATED)
    std::free(data);
#else
    cudaFree(data);
#endif
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T& operator[](size_t i) { return data[i]; }
  const T& operator[](size_t i) const { return data[i]; }
};

#if defined(PW_EMULATED)
// Two rows of k 16-bit floats, more than 2^31 elements apart; what lies between takes no memory.
struct FarRows {
  static constexpr int64_t stride = (int64_t{1} << 31) + 8;
  const int64_t bytes;
  void* data;

  explicit FarRows(int64_t k)
      : bytes((stride + k) * 2),
        data(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (data == MAP_FAILED) throw std::runtime_error("no address space");
  }
  ~FarRows() { munmap(data, bytes); }
  FarRows(const FarRows&) = delete;
  FarRows& operator=(const FarRows&) = delete;
};
#endif

struct Settings {
  uint64_t seed = 0;
  bool small = false;   // under a sanitizer: fewer and smaller cases
  bool strict = false;  // PENNYWEIGHT_STRICT, which a case may set
};
Settings& settings();

// The card of the test: the emulated one, or the current one.
Card card();
// Runs an op to its end, by the registry. `implementation` null: the best that fits.
void run_on_card(OpId id, const void* op, const char* implementation = nullptr);
template <class Op>
void run_on_card(const Op& op, const char* implementation = nullptr) {
  run_on_card(Op::id, &op, implementation);
}
void finish(int launch_error);  // of a kernel launched by the test itself; waits for it

void check(bool holds, const std::string& what);
// Same bits, and at most `most` exceptions, each no more than `step` apart as integers; says where the first one is.
template <class T>
size_t differences(const T* got, const T* expected, size_t count, size_t* first) {
  size_t found = 0;
  for (size_t i = 0; i < count; ++i)
    if (std::memcmp(&got[i], &expected[i], sizeof(T)) != 0 && found++ == 0) *first = i;
  return found;
}
template <class T>
void check_same(const T* got, const T* expected, size_t count, size_t columns, const std::string& what) {
  size_t first = 0;
  const size_t found = differences(got, expected, count, &first);
  if (found == 0) return;
  check(false, what + ": " + std::to_string(found) + " of " + std::to_string(count) + " differ, first at row " +
                   std::to_string(first / columns) + ", column " + std::to_string(first % columns) + ": " +
                   std::to_string(double(got[first])) + ", expected " + std::to_string(double(expected[first])));
}

struct Case {
  const char* name;
  void (*run)();
};
std::vector<Case>& cases();
struct Register {
  Register(const char* name, void (*run)()) { cases().push_back({name, run}); }
};
#define PW_CASE(name)                                                        \
  static void name();                                                        \
  static const ::pennyweight::tests::Register register_##name(#name, &name); \
  static void name()

}  // namespace pennyweight::tests
