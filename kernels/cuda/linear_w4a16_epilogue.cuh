// SPDX-License-Identifier: Apache-2.0
// linear_w4a16_epilogue.cuh: bias, one rounding, y.
#pragma once
#include "linear_w4a16_tiles.h"
#include "tile/int4.cuh"

namespace pennyweight::cuda {

template <int wide>
PW_DEVICE void store_w4(const W4Epilogue& e, int64_t row, int64_t n, int count, float (&v)[wide]) {
#pragma unroll
  for (int i = 0; i < wide; ++i)
    if (e.bias && i < count) v[i] += half_to_float(e.y.dtype, static_cast<const uint16_t*>(e.bias)[n + i]);
  store_floats(e.y, row, n, count, v);
}

}  // namespace pennyweight::cuda
