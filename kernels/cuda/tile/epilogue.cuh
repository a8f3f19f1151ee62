// SPDX-License-Identifier: Apache-2.0
// epilogue.cuh: four or eight neighbouring outputs of a row, from registers to y.
#pragma once
#include "ptx/convert.cuh"
#include "ptx/copy.cuh"
#include "tile/output.h"

namespace pennyweight::cuda {

struct alignas(16) Four {
  uint32_t word[4];
};
struct alignas(8) Two {
  uint32_t word[2];
};

// y[row, n .. n + wide), of which `count` exist: the bits of values of 4 bytes.
template <int wide>
PW_DEVICE void store_words(const Output& out, int64_t row, int64_t n, int count, const uint32_t (&bits)[wide]) {
  uint32_t* y = static_cast<uint32_t*>(out.y) + row * out.stride + n;
  if (count == wide && out.vector) {
#pragma unroll
    for (int i = 0; i < wide; i += 4)
      ptx::store_vector(y + i, make_uint4(bits[i], bits[i + 1], bits[i + 2], bits[i + 3]));
    return;
  }
#pragma unroll
  for (int i = 0; i < wide; ++i)
    if (i < count) y[i] = bits[i];
}

// The same, rounded once to y's dtype.
template <int wide>
PW_DEVICE void store_floats(const Output& out, int64_t row, int64_t n, int count, const float (&v)[wide]) {
  if (out.dtype == DType::f32) {
    uint32_t bits[wide];
#pragma unroll
    for (int i = 0; i < wide; ++i) bits[i] = f32_bits(v[i]);
    return store_words(out, row, n, count, bits);
  }
  uint32_t pair[wide / 2];
#pragma unroll
  for (int i = 0; i < wide / 2; ++i)
    pair[i] = out.dtype == DType::bf16 ? ptx::bf16x2_of_f32(v[2 * i], v[2 * i + 1])
                                       : ptx::f16x2_of_f32(v[2 * i], v[2 * i + 1]);
  uint16_t* y = static_cast<uint16_t*>(out.y) + row * out.stride + n;
  if (count == wide && out.vector) {
    if constexpr (wide == 8)
      *reinterpret_cast<Four*>(y) = {{pair[0], pair[1], pair[2], pair[3]}};
    else
      *reinterpret_cast<Two*>(y) = {{pair[0], pair[1]}};
    return;
  }
#pragma unroll
  for (int i = 0; i < wide; ++i)
    if (i < count) y[i] = static_cast<uint16_t>(pair[i / 2] >> (16 * (i % 2)));
}

}  // namespace pennyweight::cuda
