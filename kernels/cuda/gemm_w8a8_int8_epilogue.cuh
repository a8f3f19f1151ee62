// SPDX-License-Identifier: Apache-2.0
// gemm_w8a8_int8_epilogue.cuh: from int32 sums to y, in the CPU's operations and their order.
#pragma once
#include "gemm_w8a8_int8_tiles.h"
#include "tile/epilogue.cuh"

namespace pennyweight::cuda {

// Eight sums of a row to y.
PW_DEVICE void store_int8(const Int8Epilogue& e, int64_t row, int64_t n, int count, const int32_t (&sum)[8]) {
  if (!e.row_scale) {
    uint32_t bits[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) bits[i] = static_cast<uint32_t>(sum[i]);
    store_words(e.y, row, n, count, bits);
    return;
  }
  const float by_row = e.row_scale[row];
  float v[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const bool there = i < count;
    v[i] = static_cast<float>(sum[i]) * by_row * (there ? e.col_scale[n + i] : 0.0f);
    if (e.bias && there) v[i] += load_f32(e.bias, e.y.dtype, n + i);
  }
  store_floats(e.y, row, n, count, v);
}

}  // namespace pennyweight::cuda
