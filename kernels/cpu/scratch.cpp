// SPDX-License-Identifier: Apache-2.0
// scratch.cpp: see scratch.h.
#include "scratch.h"

#include "pennyweight/memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace pennyweight::cpu {
namespace {

constexpr int64_t kHuge = 2 << 20, kKeep = 64 << 20;

struct Buffer {
  void* data = nullptr;
  int64_t bytes = 0;
  void free() {
    std::free(data);
    data = nullptr;
    bytes = 0;
  }
  ~Buffer() { free(); }
};
thread_local Buffer buffers[static_cast<int>(Slot::count)];

}  // namespace

void* scratch(Slot slot, int64_t bytes) {
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (bytes <= buffer.bytes) return buffer.data;
  buffer.free();
  const int64_t align = bytes >= kHuge ? kHuge : 64, rounded = (bytes + align - 1) / align * align;
  buffer.data = std::aligned_alloc(align, rounded);
  if (!buffer.data) throw std::bad_alloc();
  prefer_huge_pages(buffer.data, rounded);
  buffer.bytes = rounded;
  return buffer.data;
}

void release_scratch() {
  for (Buffer& buffer : buffers)
    if (buffer.bytes > kKeep) buffer.free();
}

}  // namespace pennyweight::cpu

namespace pennyweight {

void prefer_huge_pages(void* data, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t huge = 2 << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + huge - 1) / huge * huge;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / huge * huge;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace pennyweight
