// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_epilogue.cuh: bias, one rounding, y.
#pragma once
#include "linear_w4a16_tiles.h"
#include "tile/epilogue.cuh"

namespace pennyweight::cuda {

PW_DEVICE float half_to_float(DType dtype, uint16_t v) {
  return dtype == DType::bf16 ? bf16_f32(v) : ptx::f32_of_f16(v);
}

template <int wide>
PW_DEVICE void store_w4(const W4Epilogue& e, int64_t row, int64_t n, int count, float (&v)[wide]) {
#pragma unroll
  for (int i = 0; i < wide; ++i)
    if (e.bias && i < count) v[i] += half_to_float(e.y.dtype, static_cast<const uint16_t*>(e.bias)[n + i]);
  store_floats(e.y, row, n, count, v);
}

}  // namespace pennyweight::cuda
