// SPDX-License-Identifier: Apache-2.0
// rms_norm_quantize_sm80.cu: instances of quantize_sm80.cuh behind RMSNorm, and RMSNorm alone.
#include "kernels_quantize.h"
#include "quantize_sm80.cuh"

namespace pennyweight::cuda {
namespace {

template <Format format, class Op>
int rms_norm_rows(const Op& op, void* out, float* scale, const CudaCall& call) {
  const DType dtype = op.x_dtype;
  const bool whole = op.k % kChunk == 0 && aligned(op.x, op.x_stride, dtype) && aligned(op.weight, 0, dtype) &&
                     aligned(out, 0, dtype) && aligned(op.hidden, 0, dtype) &&
                     (!op.residual || aligned(op.residual, op.residual_stride, dtype));
  return with_kind(dtype, whole, [&](auto kind) {
    const Norm<kind.kType, kind.kWhole> producer{op.x,
                                                 op.residual,
                                                 op.weight,
                                                 op.hidden,
                                                 op.x_stride,
                                                 op.residual_stride,
                                                 op.k,
                                                 1.0f / static_cast<float>(op.k),
                                                 static_cast<float>(op.eps)};
    return launch_rows<format>(producer, {out, scale, op.m, op.k}, call);
  });
}

}  // namespace

int sm80::rms_norm(const RmsNorm& op, const CudaCall& call) {
  return rms_norm_rows<Format::none>(op, op.normed, nullptr, call);
}
int sm80::rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const CudaCall& call) {
  return rms_norm_rows<Format::int8>(op, op.codes, op.scale, call);
}
int sm80::rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const CudaCall& call) {
  return rms_norm_rows<Format::e4m3>(op, op.codes, op.scale, call);
}

}  // namespace pennyweight::cuda
