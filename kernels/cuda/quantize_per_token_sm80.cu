// SPDX-License-Identifier: Apache-2.0
// quantize_per_token_sm80.cu: instances of quantize_sm80.cuh for activations as they come.
#include "kernels_quantize.h"
#include "quantize_sm80.cuh"
#include "table.h"

namespace pennyweight::cuda {
namespace {

template <Format format>
int quantize_per_token(const QuantizePerToken& op, int64_t codes_stride, const CudaCall& call) {
  const bool whole = op.k % kChunk == 0 && aligned(op.x, op.x_stride, op.x_dtype) &&
                     aligned(op.smooth, 0, DType::f32) && aligned(op.codes, 0, DType::u8) && codes_stride % kChunk == 0;
  return with_kind(op.x_dtype, whole, [&](auto kind) {
    const RowOutput output{op.codes, op.scale, op.m, op.k, codes_stride};
    if (!op.smooth) return launch_rows<format>(Plain<kind.kType, kind.kWhole>{op.x, op.x_stride, op.k}, output, call);
    return launch_rows<format>(Smoothed<kind.kType, kind.kWhole>{op.x, op.smooth, op.x_stride, op.k}, output, call);
  });
}

}  // namespace

int sm80::quantize_per_token_int8(const QuantizePerTokenInt8& op, const CudaCall& call) {
  return quantize_per_token_int8(op, op.k, call);
}
int sm80::quantize_per_token_fp8(const QuantizePerTokenFp8& op, const CudaCall& call) {
  return quantize_per_token_fp8(op, op.k, call);
}
int sm80::quantize_per_token_int8(const QuantizePerTokenInt8& op, int64_t codes_stride, const CudaCall& call) {
  return quantize_per_token<Format::int8>(op, codes_stride, call);
}
int sm80::quantize_per_token_fp8(const QuantizePerTokenFp8& op, int64_t codes_stride, const CudaCall& call) {
  return quantize_per_token<Format::e4m3>(op, codes_stride, call);
}
const char* sm80::why_not_rows(int64_t m, int64_t k, DType kept, const Card& card) {
  if (const char* why = needs_sm80(card)) return why;
  if (m > 0x7fffffff) return "takes at most 2147483647 rows; pass them in parts";
  // (asked of ragged rows, of which least is kept in registers)
  if (geometry(m, k, kept, false, 1, 512, card).shared_bytes + 1024 > card.shared_bytes)
    return "a row is longer than what the registers and the shared memory of one block hold";
  return nullptr;
}

}  // namespace pennyweight::cuda
