// SPDX-License-Identifier: Apache-2.0
// kernels_quantize.h: the entry functions of quantize_*_sm80.cu, for ops.cpp.
#pragma once
#include "pennyweight/cuda.h"
#include "pennyweight/quantize.h"

namespace pennyweight::cuda::sm80 {

int quantize_per_token_int8(const QuantizePerTokenInt8& op, const CudaCall& call);
int quantize_per_token_fp8(const QuantizePerTokenFp8& op, const CudaCall& call);
int rms_norm(const RmsNorm& op, const CudaCall& call);
int rms_norm_quantize_int8(const RmsNormQuantizeInt8& op, const CudaCall& call);
int rms_norm_quantize_fp8(const RmsNormQuantizeFp8& op, const CudaCall& call);
int silu_mul_quantize_int8(const SiluMulQuantizeInt8& op, const CudaCall& call);
int silu_mul_quantize_fp8(const SiluMulQuantizeFp8& op, const CudaCall& call);
int silu_mul(const SiluMul& op, const CudaCall& call);

// The same with rows of codes codes_stride bytes apart, for GEMMs whose rows begin at multiples of 16. What lies
// between rows stays as it is.
int quantize_per_token_int8(const QuantizePerTokenInt8& op, int64_t codes_stride, const CudaCall& call);
int quantize_per_token_fp8(const QuantizePerTokenFp8& op, int64_t codes_stride, const CudaCall& call);

// Why no kernel takes m rows of k elements, each kept as `kept`; nullptr: one does.
const char* why_not_rows(int64_t m, int64_t k, DType kept, const Card& card);

}  // namespace pennyweight::cuda::sm80
