// SPDX-License-Identifier: Apache-2.0
// silu_mul_quantize_sm80.cu: instances of quantize_sm80.cuh behind silu(gate) * up.
#include "kernels_quantize.h"
#include "quantize_sm80.cuh"

namespace pennyweight::cuda {
namespace {

template <Format format>
int silu_mul_quantize(const SiluMulQuantize& op, const CudaCall& call) {
  const bool whole =
      op.k % kChunk == 0 && aligned(op.gate_up, op.x_stride, op.x_dtype) && aligned(op.codes, 0, DType::u8);
  return with_kind(op.x_dtype, whole, [&](auto kind) {
    const SiluMul<kind.kType, kind.kWhole> producer{op.gate_up, op.x_stride, op.k};
    return launch_rows<format>(producer, {op.codes, op.scale, op.m, op.k}, call);
  });
}

}  // namespace

int sm80::silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const CudaCall& call) {
  return silu_mul_quantize<Format::int8>(op, call);
}
int sm80::silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const CudaCall& call) {
  return silu_mul_quantize<Format::e4m3>(op, call);
}

}  // namespace pennyweight::cuda
