// SPDX-License-Identifier: Apache-2.0
// silu_mul_quantize_sm80.cu: instances of quantize_sm80.cuh behind silu(gate) * up, and that alone.
#include "kernels_quantize.h"
#include "quantize_sm80.cuh"

namespace pennyweight::cuda {
namespace {

template <Format format, class Op>
int silu_mul_rows(const Op& op, void* out, DType out_dtype, float* scale, const CudaCall& call) {
  const bool whole = op.k % kChunk == 0 && aligned(op.gate_up, op.x_stride, op.x_dtype) && aligned(out, 0, out_dtype);
  return with_kind(op.x_dtype, whole, [&](auto kind) {
    const SiluMul<kind.kType, kind.kWhole> producer{op.gate_up, op.x_stride, op.k};
    return launch_rows<format>(producer, {out, scale, op.m, op.k}, call);
  });
}

}  // namespace

int sm80::silu_mul(const pennyweight::SiluMul& op, const CudaCall& call) {
  return silu_mul_rows<Format::none>(op, op.y, op.x_dtype, nullptr, call);
}
int sm80::silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const CudaCall& call) {
  return silu_mul_rows<Format::int8>(op, op.codes, DType::u8, op.scale, call);
}
int sm80::silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const CudaCall& call) {
  return silu_mul_rows<Format::e4m3>(op, op.codes, DType::u8, op.scale, call);
}

}  // namespace pennyweight::cuda
