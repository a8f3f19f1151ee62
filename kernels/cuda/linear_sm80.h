// SPDX-License-Identifier: Apache-2.0
// linear_sm80.h: the linear layers for cards that ops.cpp lists. Each: why it does not fit (nullptr: it does), the
// workspace that it needs, and its launch.
#pragma once
#include "pennyweight/cuda.h"
#include "pennyweight/linear.h"

namespace pennyweight::cuda {

const char* why_not_gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const Card& card);
int64_t workspace_gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const Card& card);
int gemm_w8a8_int8_sm80(const GemmW8A8Int8& op, const CudaCall& call);

const char* why_not_linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const Card& card);
int64_t workspace_linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const Card& card);
int linear_w8a8_int8_sm80(const LinearW8A8Int8& op, const CudaCall& call);

const char* why_not_gemm_w8a8_fp8_sm89(const GemmW8A8Fp8& op, const Card& card);
int64_t workspace_gemm_w8a8_fp8_sm89(const GemmW8A8Fp8& op, const Card& card);
int gemm_w8a8_fp8_sm89(const GemmW8A8Fp8& op, const CudaCall& call);

const char* why_not_gemm_w8a8_fp8_sm80(const GemmW8A8Fp8& op, const Card& card);
int64_t workspace_gemm_w8a8_fp8_sm80(const GemmW8A8Fp8& op, const Card& card);
int gemm_w8a8_fp8_sm80(const GemmW8A8Fp8& op, const CudaCall& call);

const char* why_not_linear_w8a8_fp8_sm89(const LinearW8A8Fp8& op, const Card& card);
int64_t workspace_linear_w8a8_fp8_sm89(const LinearW8A8Fp8& op, const Card& card);
int linear_w8a8_fp8_sm89(const LinearW8A8Fp8& op, const CudaCall& call);

const char* why_not_linear_w8a8_fp8_sm80_w8a16(const LinearW8A8Fp8& op, const Card& card);
int64_t workspace_linear_w8a8_fp8_sm80_w8a16(const LinearW8A8Fp8& op, const Card& card);
int linear_w8a8_fp8_sm80_w8a16(const LinearW8A8Fp8& op, const CudaCall& call);

const char* why_not_linear_w8a8_fp8_sm80(const LinearW8A8Fp8& op, const Card& card);
int64_t workspace_linear_w8a8_fp8_sm80(const LinearW8A8Fp8& op, const Card& card);
int linear_w8a8_fp8_sm80(const LinearW8A8Fp8& op, const CudaCall& call);

const char* why_not_linear_w4a16_decoded(const LinearW4A16& op, const Card& card);
int64_t workspace_linear_w4a16_decoded(const LinearW4A16& op, const Card& card);
int linear_w4a16_decoded(const LinearW4A16& op, const CudaCall& call);

const char* why_not_linear_w4a16_sm80(const LinearW4A16& op, const Card& card);
int64_t workspace_linear_w4a16_sm80(const LinearW4A16& op, const Card& card);
int linear_w4a16_sm80(const LinearW4A16& op, const CudaCall& call);

}  // namespace pennyweight::cuda
