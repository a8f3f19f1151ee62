// SPDX-License-Identifier: Apache-2.0
// add_splits_sm80.cu: the second pass of a GEMM whose K was split.
//
//   y[m,n] = epilogue(part[0,m,n] + part[1,m,n] + ...)          int32 or float32, in that order: runs repeat bit for
//   bit
//
// Limit     4 bytes read per sum and part; at most 16 parts, of a y that is too small to fill the card
#include "ptx/copy.cuh"
#include "tile/epilogue.cuh"
#include "tile/gemm.h"

namespace pennyweight::cuda {
namespace {

// A block per row and kSumOutputs outputs.
constexpr int kSumThreads = 64, kSumOutputs = 8 * kSumThreads;

template <class Sum>
__global__ void __launch_bounds__(kSumThreads, 16) add_splits_sm80(const Gemm p) {
  const int64_t row = blockIdx.y, n = static_cast<int64_t>(blockIdx.x) * kSumOutputs + threadIdx.x * 8, left = p.n - n;
  if (left <= 0) return;
  Sum sum[8] = {};
#pragma unroll 2
  for (int split = 0; split < p.walk.splits; ++split) {
    const auto* part = static_cast<const uint32_t*>(p.partial) + (split * p.m + row) * p.partial_stride + n;
    const uint4 low = ptx::load_once(part), high = ptx::load_once(part + 4);
    const uint32_t word[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = add_bits(sum[i], word[i]);
  }
  store_sums(p.epilogue, row, n, left < 8 ? static_cast<int>(left) : 8, sum);
}

}  // namespace

int add_splits(const Gemm& p, bool floats, void* stream) {
  const dim3 grid(static_cast<unsigned>((p.n + kSumOutputs - 1) / kSumOutputs), static_cast<unsigned>(p.m));
  return launch(floats ? add_splits_sm80<float> : add_splits_sm80<int32_t>, grid, dim3(kSumThreads), 0, stream, p);
}

}  // namespace pennyweight::cuda
