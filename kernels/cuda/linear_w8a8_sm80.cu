// SPDX-License-Identifier: Apache-2.0
// linear_w8a8_sm80.cu: quantization of x, then each of the GEMMs on mma.sync.
#include "linear_w8a8.h"

namespace pennyweight::cuda {
namespace {

using Int8 = QuantizeThenGemm<LinearW8A8Int8, QuantizePerTokenInt8, sm80::quantize_per_token_int8, GemmW8A8Int8,
                              why_not_gemm_w8a8_int8_sm80, workspace_gemm_w8a8_int8_sm80, gemm_w8a8_int8_sm80>;
using Fp8 = QuantizeThenGemm<LinearW8A8Fp8, QuantizePerTokenFp8, sm80::quantize_per_token_fp8, GemmW8A8Fp8,
                             why_not_gemm_w8a8_fp8_sm89, workspace_gemm_w8a8_fp8_sm89, gemm_w8a8_fp8_sm89>;
using DecodedFp8 = QuantizeThenGemm<LinearW8A8Fp8, QuantizePerTokenFp8, sm80::quantize_per_token_fp8, GemmW8A8Fp8,
                                    why_not_gemm_w8a8_fp8_sm80, workspace_gemm_w8a8_fp8_sm80, gemm_w8a8_fp8_sm80>;

}  // namespace

const char* why_not_linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const Card& card) {
  return Int8::why_not(op, card);
}
int64_t workspace_linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const Card& card) {
  return Int8::workspace_bytes(op, card);
}
int linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const CudaCall& call) { return Int8::run(op, call); }

const char* why_not_linear_w8a8_fp8_sm89(const LinearW8A8Fp8& op, const Card& card) { return Fp8::why_not(op, card); }
int64_t workspace_linear_w8a8_fp8_sm89(const LinearW8A8Fp8& op, const Card& card) {
  return Fp8::workspace_bytes(op, card);
}
int linear_w8a8_fp8_sm89(const LinearW8A8Fp8& op, const CudaCall& call) { return Fp8::run(op, call); }

const char* why_not_linear_w8a8_fp8_sm80(const LinearW8A8Fp8& op, const Card& card) {
  return DecodedFp8::why_not(op, card);
}
int64_t workspace_linear_w8a8_fp8_sm80(const LinearW8A8Fp8& op, const Card& card) {
  return DecodedFp8::workspace_bytes(op, card);
}
int linear_w8a8_fp8_sm80(const LinearW8A8Fp8& op, const CudaCall& call) { return DecodedFp8::run(op, call); }

}  // namespace pennyweight::cuda
