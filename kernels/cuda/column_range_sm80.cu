// SPDX-License-Identifier: Apache-2.0
// column_range_sm80.cu: smallest and largest values, or largest magnitudes, of columns; SmoothQuant's divisors
//
//   low[k] = min(low[k], min_t x[t,k])      high[k] = max(high[k], max_t x[t,k])      NaN comes in and stays
//   s[k] = (high[k] - low[k])^strength / (2 amax[k])^(1 - strength)
//
// Shapes    x (T,K) f32, f16, bf16; low, high (K,) f32
// Needs     sm_80 as the rest does; any T, K, stride. Rows that are 16-byte aligned with K a multiple of 8 move 16
//           bytes at a time, others one element
// Walk      Rows are cut into slices, slices into 8 runs, one per warp of a block; a block has 256 columns, a thread 8:
//
//             rows of a slice   warp 0 │ 256 columns │     every run is folded in order, then the 8 runs in shared
//                               warp 1 │             │     memory, then the slices (a second launch): of equal values
//                               ...    │             │     the first stays, as on the CPU
//
// Limit     T K elements read once, over the memory's bandwidth; the second launch reads 8 K bytes per slice
// Numerics  the CPU's bits, signs of zeros included; the divisors come from pow() in float64, rounded once, and are the
//           CPU's unless two libraries' pow() differ within 2^-29 of a tie
// Reference kernels/reference/calibrate.cpp          Source  own
// Tried     not yet run on a card; emulated against the reference (tests/cuda)
#include "calibrate_sm80.h"
#include "divide.cuh"
#include "rows.cuh"
#include "table.h"

namespace pennyweight::cuda {
namespace {

constexpr int kWarps = 8, kColumns = 32 * kChunk, kThreads = 32 * kWarps;
static_assert(kColumns == kThreads);
constexpr int64_t kMostSlices = 128, kLeastRows = 64;  // of a slice

struct Columns {
  const void* x;
  int64_t t, k, stride;
  int64_t rows;  // of a slice
  int slices;
  bool magnitudes;  // the largest |x| alone
  float* partial;   // (2, slices, k): low, high
  float* low;       // null with magnitudes, whose high begins at 0
  float* high;
};

// The smaller (larger) of `best` and v; NaN comes in and stays.
PW_DEVICE float keep_low(float best, float v) { return best == best && !(v >= best) ? v : best; }
PW_DEVICE float keep_high(float best, float v) { return best == best && !(v <= best) ? v : best; }

template <DType dtype, bool kWhole>
__global__ void __launch_bounds__(kThreads) column_slices(const Columns p) {
  __shared__ float runs[2][kWarps][kColumns];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + lane * kChunk;
  const int64_t slice_end = min((static_cast<int64_t>(blockIdx.y) + 1) * p.rows, p.t);
  const int64_t run = (p.rows + kWarps - 1) / kWarps, begin = blockIdx.y * p.rows + warp * run;
  const int64_t end = min(begin + run, slice_end);
  float low[kChunk], high[kChunk];
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    low[i] = bits_f32(0x7f800000u);
    high[i] = p.magnitudes ? 0.0f : bits_f32(0xff800000u);
  }
  if (column < p.k) {
#pragma unroll 2
    for (int64_t t = begin; t < end; ++t) {
      float v[kChunk];
      unpack<dtype>(load_chunk<dtype, true, kWhole>(element<dtype>(p.x, t * p.stride), column, p.k), v);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        if (p.magnitudes) v[i] = fabsf(v[i]);
        low[i] = keep_low(low[i], v[i]);
        high[i] = keep_high(high[i], v[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kChunk; ++i) {
    runs[0][warp][lane * kChunk + i] = low[i];
    runs[1][warp][lane * kChunk + i] = high[i];
  }
  __syncthreads();
  const int own = static_cast<int>(threadIdx.x);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kColumns + own;
  if (at >= p.k) return;
  float smallest = runs[0][0][own], largest = runs[1][0][own];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) {
    smallest = keep_low(smallest, runs[0][i][own]);
    largest = keep_high(largest, runs[1][i][own]);
  }
  p.partial[blockIdx.y * p.k + at] = smallest;
  p.partial[(p.slices + static_cast<int64_t>(blockIdx.y)) * p.k + at] = largest;
}

__global__ void __launch_bounds__(kThreads) column_fold(const Columns p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.k) return;
  float low = p.magnitudes ? 0.0f : p.low[at], high = p.magnitudes ? 0.0f : p.high[at];
#pragma unroll 4
  for (int slice = 0; slice < p.slices; ++slice) {
    low = keep_low(low, p.partial[slice * p.k + at]);
    high = keep_high(high, p.partial[(p.slices + static_cast<int64_t>(slice)) * p.k + at]);
  }
  if (!p.magnitudes) p.low[at] = low;
  p.high[at] = high;
}

__global__ void __launch_bounds__(kThreads) smooth_columns(const SmoothScales p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.k) return;
  const double range = static_cast<double>(p.high[at]) - static_cast<double>(p.low[at]);
  const double weight = 2.0 * static_cast<double>(p.weight_abs_max[at]);
  float scale = 1.0f;
  if (range > 0.0 && weight > 0.0) {
    const double s = divide_double(pow(range, p.strength), pow(weight, 1.0 - p.strength));
    scale = static_cast<float>(s < 1e-5 ? 1e-5 : s);
  }
  p.scale[at] = scale;
}

int slices_of(int64_t t, int64_t k, const Card& card) {
  const int64_t tiles = (k + kColumns - 1) / kColumns, wanted = 4 * card.multiprocessors / tiles;
  const int64_t most = min(kMostSlices, (t + kLeastRows - 1) / kLeastRows);
  return static_cast<int>(wanted < 1 || most < 1 ? 1 : min(wanted, most));
}
int64_t partial_bytes(int64_t t, int64_t k, const Card& card) { return 8 * slices_of(t, k, card) * k; }

int run(Columns p, DType dtype, const CudaCall& call) {
  p.slices = slices_of(p.t, p.k, call.card);
  p.rows = (p.t + p.slices - 1) / p.slices;
  p.partial = static_cast<float*>(call.workspace);
  const unsigned tiles = static_cast<unsigned>((p.k + kColumns - 1) / kColumns);
  const bool whole = p.k % kChunk == 0 && aligned(p.x, p.stride, dtype);
  const int error = with_kind(dtype, whole, [&](auto kind) {
    return launch(column_slices<kind.kType, kind.kWhole>, dim3(tiles, p.slices), dim3(kThreads), 0, call.stream, p);
  });
  return error ? error : launch(column_fold, dim3(tiles), dim3(kThreads), 0, call.stream, p);
}

}  // namespace

const char* why_not_columns_sm80(int64_t k, const Card& card) {
  if (const char* why = needs_sm80(card)) return why;
  return k > int64_t{0x7fffffff} * kColumns ? "has more columns than a launch takes" : nullptr;
}

int64_t workspace_column_range_sm80(const ColumnRange& op, const Card& card) { return partial_bytes(op.t, op.k, card); }
int column_range_sm80(const ColumnRange& op, const CudaCall& call) {
  Columns p{};
  p.x = op.x;
  p.t = op.t;
  p.k = op.k;
  p.stride = op.x_stride;
  p.low = op.low;
  p.high = op.high;
  return run(p, op.x_dtype, call);
}

int64_t workspace_column_abs_max_sm80(const ColumnAbsMax& op, const Card& card) {
  return partial_bytes(op.n, op.k, card);
}
int column_abs_max_sm80(const ColumnAbsMax& op, const CudaCall& call) {
  Columns p{};
  p.x = op.weight;
  p.t = op.n;
  p.k = p.stride = op.k;
  p.magnitudes = true;
  p.high = op.out;
  return run(p, op.w_dtype, call);
}

int smooth_scales_sm80(const SmoothScales& op, const CudaCall& call) {
  return launch(smooth_columns, dim3(static_cast<unsigned>((op.k + kThreads - 1) / kThreads)), dim3(kThreads), 0,
                call.stream, op);
}

}  // namespace pennyweight::cuda
