// SPDX-License-Identifier: Apache-2.0
// weight_scales_sm80.cu: symmetric scales of a weight, min-max or of least error, a warp per group
//
//   scale = amax / limit, or the one of least sum |code(w / scale) - w / scale|^norm scale^norm over amax (1 - step /
//   grid)
//
// Shapes    weight (N,K) f32, f16, bf16; scale (N, K / group); any group
// Needs     sm_80 as the rest does
// Walk      The search over steps stops for the whole weight once `patience` steps in a row improved no group, which
//           couples the groups. No group waits for another: each tries 20 steps and notes in a mask which of them
//           improved on its best; the masks' union (one word, by atomic or, so that no order matters) tells where the
//           search stops, and a last launch takes each group's last improvement before that. The host asks nothing.
//
//             launch    1           2                       3 ...              last
//                       amax, zero  steps 0 .. 19           steps 20 .. 39     where it stops; scales
//                       the words   masks, best, union      the same           from amax and the masks
//
//           In a warp each half has 10 steps and goes over the group 16 values at a time, all its steps at once
// Limit     20 steps of some 40 operations per weight: 8192 x 8192 takes 1.7e9 warp instructions, 2 ms of 132 SMs at
//           the full rate; the weight's bytes are nothing beside it
// Numerics  the sums, the power and the order of kernels/cpu/weight_scales_kernels.h with 16 lanes (AVX-512), so that
//           the scales are those of such a CPU, bit for bit, unless two steps' errors agree to 2^-50: there this pow()
//           and the C library's decide
// Reference kernels/reference/calibrate.cpp          Source  own
// Tried     not yet run on a card; emulated against the reference (tests/cuda)
#include "calibrate_sm80.h"
#include "divide.cuh"
#include "table.h"
#include "tile/epilogue.cuh"

namespace pennyweight::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kSteps = 20, kHalf = kSteps / 2;  // of a launch; of half a warp

struct Groups {
  const void* weight;
  float* scale;
  int64_t count, size;
  int64_t format;
  DType dtype;
  float* amax;         // (count,)
  double* best;        // (count,)
  uint32_t* masks;     // (launches, count)
  uint32_t* improved;  // (launches,)
  int launches, steps, grid;
  int64_t patience;
  double norm;
};

PW_DEVICE float value(const Groups& p, int64_t i) {
  if (p.dtype == DType::f32) return __ldg(static_cast<const float*>(p.weight) + i);
  return float_of_half(p.dtype, __ldg(static_cast<const uint16_t*>(p.weight) + i));
}

// A scale from a group's amax (already of the weight's dtype), as llm-compressor rounds it.
PW_DEVICE float scale_of(const Groups& p, float amax) {
  const float limit = p.format == 8 ? 127.5f : p.format == 4 ? 7.5f : 448.0f;
  const float scale = round_to(p.dtype, divide(amax, limit));
  return scale == 0.0f ? dtype_eps(p.dtype) : scale;
}

// Of p * amax, p = 1 - step / grid, the quotient in float64.
PW_DEVICE float scale_at(const Groups& p, float amax, int step) {
  const double shrunk = 1.0 - divide_double(static_cast<double>(step), static_cast<double>(p.grid));
  return scale_of(p, round_to(p.dtype, static_cast<float>(shrunk) * amax));
}

__global__ void __launch_bounds__(kThreads) weight_min_max(const Groups p) {
  if (blockIdx.x == 0 && static_cast<int>(threadIdx.x) < p.launches) p.improved[threadIdx.x] = 0;
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (group >= p.count) return;
  float most = 0.0f;
#pragma unroll 4
  for (int64_t i = threadIdx.x % 32; i < p.size; i += 32) {
    const float magnitude = fabsf(value(p, group * p.size + i));
    most = magnitude > most ? magnitude : most;  // never NaN
  }
  most = bits_f32(__reduce_max_sync(kFullWarp, f32_bits(most)));
  if (threadIdx.x % 32 != 0) return;
  p.scale[group] = scale_of(p, most);
  if (p.amax) p.amax[group] = most;
}

// u^norm for finite u >= 0 and the rounding to E4M3, operation for operation those of weight_scales_kernels.h.
PW_DEVICE float power(float u, float norm) {
  const uint32_t exponent = static_cast<uint32_t>(static_cast<int32_t>(f32_bits(u) - 0x3f3504f3u) >> 23);
  const float f = bits_f32(f32_bits(u) - (exponent << 23)) - 1.0f;
  float log = 0.1706579029560089f;
  log = fma_f32(log, f, -0.2726864814758301f);
  log = fma_f32(log, f, 0.29725056886672974f);
  log = fma_f32(log, f, -0.3589632213115692f);
  log = fma_f32(log, f, 0.48046624660491943f);
  log = fma_f32(log, f, -0.7213758230209351f);
  log = fma_f32(log, f, 1.442699670791626f);
  const float t = norm * fma_f32(log, f, static_cast<float>(static_cast<int32_t>(exponent)));
  const float bounded = t < 126.0f ? t : 126.0f, clamped = bounded > -126.0f ? bounded : -126.0f;
  const float n = round_half_even(clamped), r = clamped - n;
  float exp = 0.0013276470126584172f;
  exp = fma_f32(exp, r, 0.009675540961325169f);
  exp = fma_f32(exp, r, 0.05550713464617729f);
  exp = fma_f32(exp, r, 0.24022120237350464f);
  exp = fma_f32(exp, r, 0.6931469440460205f);
  exp = fma_f32(exp, r, 1.0000001192092896f);
  return u > 0.0f ? bits_f32(f32_bits(exp) + (static_cast<uint32_t>(static_cast<int32_t>(n)) << 23)) : 0.0f;
}

PW_DEVICE float round_e4m3(float v) {
  const float magnitude = fabsf(v), power_of_two = bits_f32(f32_bits(magnitude) & 0x7f800000u);
  const uint32_t quantum = f32_bits(power_of_two > 0x1p-6f ? power_of_two : 0x1p-6f) - (3u << 23);
  const float rounded = round_half_even(magnitude * bits_f32((254u << 23) - quantum)) * bits_f32(quantum);
  return bits_f32(f32_bits(rounded < 448.0f ? rounded : 448.0f) | (f32_bits(v) & 0x80000000u));
}

// What a value, in units of the scale, is off by.
template <bool kFp8>
PW_DEVICE float miss(float v, float low, float high) {
  if constexpr (kFp8) return fabsf(round_e4m3(v) - v);
  const float code = round_half_even(v), bounded = high < code ? high : code;
  return fabsf((low > bounded ? low : bounded) - v);
}

template <bool kFp8>
__global__ void __launch_bounds__(kThreads) weight_steps(const Groups p, int launch) {
  __shared__ uint32_t any;
  if (threadIdx.x == 0) any = 0;
  __syncthreads();
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (group < p.count) {
    const int lane = static_cast<int>(threadIdx.x % 32), half = lane / 16, first = launch * kSteps;
    const float high = p.format == 8 ? 127.0f : 7.0f, low = -high - 1.0f, norm = static_cast<float>(p.norm);
    // lane l has step l's scale; steps past the last are tried in vain
    const int step = first + (lane < kSteps ? lane : 0);
    const float scale = scale_at(p, p.amax[group], step), reciprocal = divide(1.0f, scale);
    float inverse[kHalf], sum[kHalf] = {};
#pragma unroll
    for (int s = 0; s < kHalf; ++s) inverse[s] = __shfl_sync(kFullWarp, reciprocal, half * kHalf + s);
#pragma unroll 1
    for (int64_t i = lane % 16; i < p.size; i += 16) {
      const float v = value(p, group * p.size + i);
#pragma unroll
      for (int s = 0; s < kHalf; ++s) sum[s] += power(miss<kFp8>(v * inverse[s], low, high), norm);
    }
    float own = 0.0f;  // step l's sum, in lane l
#pragma unroll
    for (int s = 0; s < kHalf; ++s) {
#pragma unroll
      for (int bits = 8; bits > 0; bits /= 2) sum[s] += __shfl_xor_sync(kFullWarp, sum[s], bits);
      const float of_lane = __shfl_sync(kFullWarp, sum[s], lane / kHalf * 16);
      if (lane % kHalf == s) own = of_lane;
    }
    const double error = static_cast<double>(own) * pow(static_cast<double>(scale), p.norm);
    double best = launch == 0 ? static_cast<double>(bits_f32(0x7f800000u)) : p.best[group];
    uint32_t mask = 0;
#pragma unroll 1
    for (int s = 0; s < kSteps && first + s < p.steps; ++s) {
      const double tried = __shfl_sync(kFullWarp, error, s);
      if (!(tried < best)) continue;
      best = tried;
      mask |= 1u << s;
    }
    if (lane == 0) {
      p.best[group] = best;
      p.masks[launch * p.count + group] = mask;
      atomicOr(&any, mask);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) atomicOr(p.improved + launch, any);
}

__global__ void __launch_bounds__(kThreads) weight_best(const Groups p) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (group >= p.count) return;
  int64_t idle = 0;
  int found = -1;
#pragma unroll 1
  for (int step = 0; step < p.steps && idle < p.patience; ++step) {
    const int launch = step / kSteps, bit = step - launch * kSteps;
    idle = p.improved[launch] >> bit & 1u ? 0 : idle + 1;
    if (p.masks[launch * p.count + group] >> bit & 1u) found = step;
  }
  if (found >= 0) p.scale[group] = scale_at(p, p.amax[group], found);
}

int64_t steps_of(const WeightScales& op) {
  return op.mse ? static_cast<int64_t>(op.maxshrink * static_cast<double>(op.grid)) : 0;
}
constexpr int kMostLaunches = kThreads;  // whose words the first launch zeroes

// The workspace: best | amax | masks | improved.
struct Room {
  int64_t count, launches;
  explicit Room(const WeightScales& op)
      : count(op.n * (op.k / op.group_size)), launches((steps_of(op) + kSteps - 1) / kSteps) {}
  int64_t bytes() const { return launches ? 12 * count + 4 * launches * count + 4 * launches : 0; }
};

}  // namespace

const char* why_not_weight_scales_sm80(const WeightScales& op, const Card& card) {
  if (const char* why = needs_sm80(card)) return why;
  if (op.n * (op.k / op.group_size) > int64_t{0x7fffffff} * kWarps) return "has more groups than a launch takes";
  if (op.grid > 0x7fffffff || Room(op).launches > kMostLaunches) return "tries at most 5120 steps";
  return nullptr;
}

int64_t workspace_weight_scales_sm80(const WeightScales& op, const Card&) { return Room(op).bytes(); }

int weight_scales_sm80(const WeightScales& op, const CudaCall& call) {
  const Room room(op);
  Groups p{};
  p.weight = op.weight;
  p.scale = op.scale;
  p.count = room.count;
  p.size = op.group_size;
  p.format = op.format;
  p.dtype = op.w_dtype;
  p.launches = static_cast<int>(room.launches);
  p.steps = static_cast<int>(steps_of(op));
  p.grid = static_cast<int>(op.grid);
  p.patience = op.patience;
  p.norm = op.norm;
  if (p.launches) {
    p.best = static_cast<double*>(call.workspace);
    p.amax = reinterpret_cast<float*>(p.best + p.count);
    p.masks = reinterpret_cast<uint32_t*>(p.amax + p.count);
    p.improved = p.masks + room.launches * p.count;
  }
  const dim3 warps(static_cast<unsigned>((p.count + kWarps - 1) / kWarps));
  int error = launch(weight_min_max, warps, dim3(kThreads), 0, call.stream, p);
  for (int i = 0; i < p.launches && !error; ++i)
    error =
        launch(op.format == 0 ? weight_steps<true> : weight_steps<false>, warps, dim3(kThreads), 0, call.stream, p, i);
  if (error || !p.launches) return error;
  return launch(weight_best, dim3(static_cast<unsigned>((p.count + kThreads - 1) / kThreads)), dim3(kThreads), 0,
                call.stream, p);
}

}  // namespace pennyweight::cuda
