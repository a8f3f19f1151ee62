// SPDX-License-Identifier: Apache-2.0
// gptq_columns_sm80.cu: GPTQ's recurrence over 128 columns, a warp per row of the weight
//
//   target_i = (sums_i + sum_{j < i} d_j R_ji) / R_ii + w_i      q_i = clamp(round(target_i / s_i))      d_i = w_i -
//   q_i s_i
//
// Shapes    R (L,K,K), of which the diagonal block at `first` is read; w, sums, codes (L,N,K), as calibrate.h says; f32
// Needs     sm_80 as the rest does; any N, K; no alignment: a lane's columns are 32 apart, so that a warp reads 128
//           bytes
// Walk      A block keeps R's block in shared memory, upper part only, and its 16 warps take rows in turn. A row's 128
//           columns lie in the registers of its warp, 4 a lane. Column i is decided by every lane on what it has (only
//           lane i % 32 has what is meant), its d goes to all by one shuffle, and each adds d R_ic to its columns. No
//           barrier but the one behind the load of R:
//
//             R's block       columns →  0..31   32..63  64..95  96..127
//                        rows  0 ..  31  ┌───────┬───────┬───────┬───────┐     a "slot" of 32 rows keeps the columns
//                             32 ..  63  └───────┼───────┼───────┼───────┤     from its own on: 16, 12, 8 and 4 KB,
//                             64 ..  95          └───────┼───────┼───────┤     40 KB instead of 64, and as many fewer
//                             96 .. 127                  └───────┼───────┤     multiplications
//                                                                └───────┘
//
// Limit     a column is a chain of some 12 dependent operations and a shuffle, 85 cycles or so, and 20 instructions:
//           with 8 warps or more per scheduler the instructions decide, N 128 20 of them over 4 per cycle and SM; with
//           fewer (N < 32 SMs) the chain, 11000 cycles for the block. Two blocks of 40 KB fit everywhere
// Numerics  float32, the CPU's operations in its order: the same bits as kernels/reference/calibrate.cpp, the loss
//           aside, which is summed by lanes. Quotients are correctly rounded where they decide (|q| <= 512). NaN stays
//           in its row
// Reference kernels/reference/calibrate.cpp
// Source    own; GPTQ without the inverse as in kernels/cpu/gptq.h; a warp per row is others' way too
// Tried     not yet run on a card; emulated against the reference (tests/cuda)
#include "calibrate_sm80.h"
#include "divide.cuh"
#include "table.h"

namespace pennyweight::cuda {
namespace {

constexpr int kColumns = static_cast<int>(kGptqColumns), kSlots = kColumns / 32, kWarps = 16, kThreads = 32 * kWarps;
constexpr int kBlocksPerSm = 2;

// Where slot s begins, in floats, and how many a row of it has.
PW_HD constexpr int slot_begin(int s) { return 4096 * s - 512 * s * (s - 1); }
PW_HD constexpr int slot_width(int s) { return kColumns - 32 * s; }
constexpr int kSharedBytes = slot_begin(kSlots) * 4;
static_assert(kSharedBytes == 40 << 10);

// The code of a target, as a float: the nearest whole number by adding and taking away 1.5 * 2^23.
PW_DEVICE float code_of(float target, const ScaleDivisor& by, float low, float high) {
  return fminf(fmaxf((by.quotient(target) + 12582912.0f) - 12582912.0f, low), high);
}

// R's diagonal block, the identity past K.
PW_DEVICE void load_factor(const float* factor, int64_t k, int count, float* shared) {
#pragma unroll 4
  for (int e = static_cast<int>(threadIdx.x); e < kColumns * kColumns; e += kThreads) {
    const int row = e / kColumns, column = e % kColumns, slot = row / 32;
    if (column < slot * 32) continue;
    const bool there = row < count && column < count;
    shared[slot_begin(slot) + row % 32 * slot_width(slot) + column - slot * 32] = there ? factor[row * k + column]
                                                                                  : row == column ? 1.0f
                                                                                                  : 0.0f;
  }
}

// R_ii of the lane's column of a slot.
PW_DEVICE float diagonal(const float* shared, int slot, int lane) {
  return shared[slot_begin(slot) + lane * slot_width(slot) + lane];
}

struct Row {
  float w[kSlots], sum[kSlots], target[kSlots];
  ScaleDivisor scale[kSlots];

  // Column 32 s + l decided by lane l, its d handed on.
  template <int s>
  __device__ __forceinline__ void slot(const float* shared, const float (&inverse)[kSlots], int lane, int count,
                                       float low, float high) {
    const float* factor = shared + slot_begin(s) + lane;
    const int columns = count - 32 * s < 32 ? count - 32 * s : 32;
#pragma unroll 2
    for (int l = 0; l < columns; ++l, factor += slot_width(s)) {
      const float aim = fma_f32(sum[s], inverse[s], w[s]);
      if (lane == l) target[s] = aim;
      const float mine = fma_f32(-code_of(aim, scale[s], low, high), scale[s].scale, w[s]);
      const float d = __shfl_sync(kFullWarp, mine, l);
#pragma unroll
      for (int c = s; c < kSlots; ++c) sum[c] = fma_f32(d, factor[32 * (c - s)], sum[c]);
    }
  }
};

__global__ void __launch_bounds__(kThreads, kBlocksPerSm) gptq_columns(const GptqColumns p) {
  PW_DYNAMIC_SHARED(dynamic);
  float* shared = reinterpret_cast<float*>(dynamic);
  const int lane = static_cast<int>(threadIdx.x & 31), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t layer = blockIdx.y, left = p.k - p.first;
  const int count = left < kColumns ? static_cast<int>(left) : kColumns;
  load_factor(p.factor + (layer * p.k + p.first) * p.k + p.first, p.k, count, shared);
  __syncthreads();

  float inverse[kSlots];
  int group[kSlots];
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    inverse[s] = divide(1.0f, diagonal(shared, s, lane));
    group[s] = lane + 32 * s < count ? p.group[layer * p.k + p.first + lane + 32 * s] : 0;
  }
  const float high = p.bits == 8 ? 127.0f : 7.0f, low = -high - 1.0f;

#pragma unroll 1
  for (int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + warp; n < p.n;
       n += static_cast<int64_t>(gridDim.x) * kWarps) {
    const int64_t at = (layer * p.n + n) * p.k + p.first + lane;
    Row row;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const bool there = lane + 32 * s < count;
      row.w[s] = there ? p.residual[at + 32 * s] : 0.0f;
      row.sum[s] = there ? p.sums[at + 32 * s] : 0.0f;
      row.target[s] = 0.0f;
      row.scale[s].set(there ? p.scale[(layer * p.n + n) * p.groups + group[s]] : 1.0f);
    }
    row.slot<0>(shared, inverse, lane, count, low, high);
    row.slot<1>(shared, inverse, lane, count, low, high);
    row.slot<2>(shared, inverse, lane, count, low, high);
    row.slot<3>(shared, inverse, lane, count, low, high);
    float loss = 0.0f;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      if (lane + 32 * s >= count) continue;
      const float code = code_of(row.target[s], row.scale[s], low, high);
      const float miss = fma_f32(-code, row.scale[s].scale, row.target[s]) * diagonal(shared, s, lane);
      loss = fma_f32(miss, miss, loss);
      p.residual[at + 32 * s] = fma_f32(-code, row.scale[s].scale, row.w[s]);
      p.codes[at + 32 * s] = static_cast<int8_t>(static_cast<int>(code));
    }
#pragma unroll
    for (int bits = 16; bits > 0; bits /= 2) loss += __shfl_xor_sync(kFullWarp, loss, bits);
    if (lane == 0) p.loss[layer * p.n + n] += loss;
  }
}

constexpr int64_t kMostLayers = 65535;

}  // namespace

const char* why_not_gptq_columns_sm80(const GptqColumns& op, const Card& card) {
  if (const char* why = needs_sm80(card)) return why;
  return op.layers > kMostLayers ? "takes at most 65535 layers; pass them in parts" : nullptr;
}

int gptq_columns_sm80(const GptqColumns& op, const CudaCall& call) {
  // Blocks beyond those that run at once would only load R again.
  const int64_t most = static_cast<int64_t>(call.card.multiprocessors) * kBlocksPerSm;
  const int64_t blocks = (op.n + kWarps - 1) / kWarps, turns = (blocks * op.layers + most - 1) / most;
  const dim3 grid(static_cast<unsigned>((blocks + turns - 1) / turns), static_cast<unsigned>(op.layers));
  return launch(gptq_columns, grid, dim3(kThreads), kSharedBytes, call.stream, op);
}

}  // namespace pennyweight::cuda
