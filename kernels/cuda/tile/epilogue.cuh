// SPDX-License-Identifier: Apache-2.0
// epilogue.cuh: four or eight neighbouring outputs of a row, from sums in registers to y, in the CPU's operations and
// their order.
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

// ---- sums: int32, which wrap, or float32; `bits` of another one
PW_DEVICE int32_t add_bits(int32_t sum, uint32_t bits) {
  return static_cast<int32_t>(static_cast<uint32_t>(sum) + bits);
}
PW_DEVICE float add_bits(float sum, uint32_t bits) { return sum + bits_f32(bits); }
PW_DEVICE uint32_t bits_of(int32_t sum) { return static_cast<uint32_t>(sum); }
PW_DEVICE uint32_t bits_of(float sum) { return f32_bits(sum); }

PW_DEVICE float float_of_half(DType dtype, uint16_t v) {
  return dtype == DType::bf16 ? bf16_f32(v) : ptx::f32_of_f16(v);
}
PW_DEVICE float element_of(DType dtype, const void* values, int64_t i) {
  return dtype == DType::f32 ? static_cast<const float*>(values)[i]
                             : float_of_half(dtype, static_cast<const uint16_t*>(values)[i]);
}

// Sums of a row to y. Nothing is read past N.
template <class Sum, int wide>
PW_DEVICE void store_sums(const Epilogue& e, int64_t row, int64_t n, int count, const Sum (&sum)[wide]) {
  if (e.y.dtype == DType::i32) {
    uint32_t bits[wide];
#pragma unroll
    for (int i = 0; i < wide; ++i) bits[i] = bits_of(sum[i]);
    return store_words(e.y, row, n, count, bits);
  }
  float v[wide];
#pragma unroll
  for (int i = 0; i < wide; ++i) v[i] = static_cast<float>(sum[i]);
  if (e.row_scale) {
    const float by_row = e.row_scale[row];
#pragma unroll
    for (int i = 0; i < wide; ++i) v[i] *= by_row;
  }
#pragma unroll
  for (int i = 0; i < wide; ++i) {
    if (e.col_scale) v[i] *= i < count ? e.col_scale[n + i] : 0.0f;
    if (e.bias && i < count) v[i] += element_of(e.y.dtype, e.bias, n + i);
  }
  store_floats(e.y, row, n, count, v);
}

// Sums of a row to a row of partial sums, which is whole eights, so that no store has a tail.
template <class Sum, int wide>
PW_DEVICE void store_partial(void* partial, int64_t stride, int64_t row, int64_t n, const Sum (&sum)[wide]) {
  uint32_t bits[wide];
#pragma unroll
  for (int i = 0; i < wide; ++i) bits[i] = bits_of(sum[i]);
  store_words({partial, stride, DType::i32, true}, row, n, wide, bits);
}

}  // namespace pennyweight::cuda
