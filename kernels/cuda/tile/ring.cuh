// SPDX-License-Identifier: Apache-2.0
// ring.cuh: the main loop of every GEMM. Shared memory holds a ring of `stages` k tiles; while one is multiplied the
// next stages - 1 are on their way; one barrier per k tile:
//
//     wait for tile i ─ barrier ─ start copying tile i + stages - 1 ─ multiply tile i
//                                 into the place of tile i - 1, which all warps have left
#pragma once
#include "ptx/copy.cuh"

namespace pennyweight::cuda {

// copy(i) starts this thread's copies of k tile i, multiply(i) works on it.
template <int stages, class Copy, class Multiply>
PW_DEVICE void run_ring(int turns, Copy copy, Multiply multiply) {
#pragma unroll
  for (int s = 0; s < stages - 1; ++s) {
    if (s < turns) copy(s);
    ptx::commit_copies();
  }
#pragma unroll 1
  for (int i = 0; i < turns; ++i) {
    ptx::wait_copies<stages - 2>();  // tile i is there
    __syncthreads();                 // for all threads, and all have left tile i - 1
    if (i + stages - 1 < turns) copy(i + stages - 1);
    ptx::commit_copies();
    multiply(i);
  }
}

}  // namespace pennyweight::cuda
