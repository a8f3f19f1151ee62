// SPDX-License-Identifier: Apache-2.0
// calibrate_sm80.h: the entry functions of calibration on cards, for ops.cpp.
#pragma once
#include "pennyweight/calibrate.h"
#include "pennyweight/cuda.h"

namespace pennyweight::cuda {

const char* why_not_hessian_accumulate_sm80(const HessianAccumulate& op, const Card& card);
int64_t workspace_hessian_accumulate_sm80(const HessianAccumulate& op, const Card& card);
int hessian_accumulate_sm80(const HessianAccumulate& op, const CudaCall& call);

const char* why_not_gptq_columns_sm80(const GptqColumns& op, const Card& card);
int gptq_columns_sm80(const GptqColumns& op, const CudaCall& call);

}  // namespace pennyweight::cuda
