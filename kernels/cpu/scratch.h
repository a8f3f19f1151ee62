// SPDX-License-Identifier: Apache-2.0
// scratch.h: workspace of kernels: per thread, kept between calls, 64-byte aligned (2 MB and huge pages when large).
#pragma once
#include <cstdint>

namespace pennyweight::cpu {

// What a buffer is for; buffers of one thread with different purposes do not overlap.
enum class Slot : int { activations, scales, sums, panel, tile, factor, residual, count };

// At least `bytes` of uninitialized memory, valid until this thread asks for the same slot again. Throws
// std::bad_alloc. A thread keeps at most 64 MB per slot: larger buffers are given back by release_scratch().
void* scratch(Slot slot, int64_t bytes);
void release_scratch();

}  // namespace pennyweight::cpu
