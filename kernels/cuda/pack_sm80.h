// SPDX-License-Identifier: Apache-2.0
// pack_sm80.h: the entry functions of pack_*_sm80.cu, for ops.cpp, and a 4-bit weight decoded for others to multiply.
#pragma once
#include "pennyweight/cuda.h"
#include "pennyweight/pack.h"

namespace pennyweight::cuda {

const char* why_not_code_rows(const void* weight, const Card& card);
int pack_int8_sm80(const PackInt8& op, const CudaCall& call);
int pack_fp8_sm80(const PackFp8& op, const CudaCall& call);
int unpack_int8_sm80(const UnpackInt8& op, const CudaCall& call);
int unpack_fp8_sm80(const UnpackFp8& op, const CudaCall& call);
int dequantize_int8_sm80(const DequantizeInt8& op, const CudaCall& call);
int dequantize_fp8_sm80(const DequantizeFp8& op, const CudaCall& call);

const char* why_not_int4_panel(const void* weight, const Int4Panel& panel, const Card& card);
int pack_int4_sm80(const PackInt4& op, const CudaCall& call);
int unpack_int4_sm80(const UnpackInt4& op, const CudaCall& call);
int dequantize_int4_sm80(const DequantizeInt4& op, const CudaCall& call);
// (q - z) * scale in float32, rounded once to `dtype` (f32, f16, bf16): out (n, k), contiguous. The same conditions.
int decode_int4_sm80(const void* weight, const Int4Panel& panel, void* out, DType dtype, void* stream);

int pack_nibbles_sm80(const PackNibbles& op, const CudaCall& call);
int unpack_nibbles_sm80(const UnpackNibbles& op, const CudaCall& call);

}  // namespace pennyweight::cuda
