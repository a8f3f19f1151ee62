// SPDX-License-Identifier: Apache-2.0
// quantize_row.h: one token's dynamic quantization, for kernels that quantize what they multiply.
//
// codes (k,) = quantize(x / smooth) and the row's scale (returned), bit for bit as pennyweight/quantize.h says: the
// scale is NaN where the row holds NaN or Inf and 0 where all of it is 0; then the codes are 0.
#pragma once
#include "pennyweight/formats.h"

namespace pennyweight::cpu {

// k values of `dtype` (f32, f16, bf16) at x, to be divided by smooth (k,) unless that is null.
struct ActivationRow {
  const void* x;
  const float* smooth;
  int64_t k;
  DType dtype;
};

// Exactly k codes are written. No workspace, no threads.
namespace avx2 {
float quantize_row_int8(const ActivationRow& row, int8_t* codes);
float quantize_row_fp8(const ActivationRow& row, uint8_t* codes);
}  // namespace avx2
namespace avx512vnni {
float quantize_row_int8(const ActivationRow& row, int8_t* codes);
float quantize_row_fp8(const ActivationRow& row, uint8_t* codes);
}  // namespace avx512vnni
namespace avx512bf16 {
float quantize_row_int8(const ActivationRow& row, int8_t* codes);
float quantize_row_fp8(const ActivationRow& row, uint8_t* codes);
}  // namespace avx512bf16

}  // namespace pennyweight::cpu
