// SPDX-License-Identifier: Apache-2.0
// hessian_kernels.h: hessian.h's kernels for the instruction set of the file that includes it.
//
// Micro-tile: AVX-512 8 x 48, 24 accumulators, per step 3 loads and 8 broadcasts for 24 FMAs; AVX2 4 x 24, 12
// accumulators, 3 loads and 4 broadcasts for 12.
#pragma once
#include "hessian.h"
#include "lanes.h"
#include "pennyweight/numerics.h"

namespace pennyweight::cpu {
namespace {

constexpr int kRows = kLanes == 16 ? 8 : 4;
constexpr int kVectors = 3;
constexpr int kWidth = kVectors * kLanes;  // columns of a panel: 48 or 24

template <Lanes (*kStep)(Lanes, Lanes, Lanes)>
static void multiply(float* c, int64_t stride, const float* a, const float* b, int64_t steps) {
  for (int i = 0; i < kWidth; i += kRows) {
    Lanes acc[kRows][kVectors] = {};
    const float* ahead = (i < kWidth / 2 ? a : b) + steps * kWidth + i % (kWidth / 2) / kRows * steps * kLanes;
    for (int64_t t = 0; t < steps; ++t) {
      __builtin_prefetch(ahead + t * kLanes, 0, 2);
      Lanes right[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) right[v] = load(b + t * kWidth + v * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Lanes left = all(a[t * kWidth + i + r]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) acc[r][v] = kStep(left, right[v], acc[r][v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      float* row = c + (i + r) * stride;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(row + v * kLanes, load(row + v * kLanes) + acc[r][v]);
    }
  }
}

template <DType T>
static void pack_as(const void* x, int64_t stride, int64_t tokens, int64_t columns, float* panel) {
  for (int64_t t = 0; t < tokens; ++t, panel += kWidth) {
    if (columns >= kWidth) {
      for (int v = 0; v < kVectors; ++v) store(panel + v * kLanes, load_as<T>(x, t * stride + v * kLanes));
    } else {
      for (int64_t i = 0; i < kWidth; ++i) panel[i] = i < columns ? load_f32(x, T, t * stride + i) : 0.0f;
    }
  }
}

static void pack(const void* x, DType dtype, int64_t stride, int64_t tokens, int64_t columns, float* panel) {
  if (dtype == DType::f32)
    pack_as<DType::f32>(x, stride, tokens, columns, panel);
  else if (dtype == DType::f16)
    pack_as<DType::f16>(x, stride, tokens, columns, panel);
  else
    pack_as<DType::bf16>(x, stride, tokens, columns, panel);
}

}  // namespace
}  // namespace pennyweight::cpu
