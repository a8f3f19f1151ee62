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

const char* why_not_weight_scales_sm80(const WeightScales& op, const Card& card);
int64_t workspace_weight_scales_sm80(const WeightScales& op, const Card& card);
int weight_scales_sm80(const WeightScales& op, const CudaCall& call);

const char* why_not_quantize_weight_sm80(const QuantizeWeight& op, const Card& card);
int quantize_weight_sm80(const QuantizeWeight& op, const CudaCall& call);

const char* why_not_columns_sm80(int64_t k, const Card& card);  // of the three below
int64_t workspace_column_range_sm80(const ColumnRange& op, const Card& card);
int column_range_sm80(const ColumnRange& op, const CudaCall& call);
int64_t workspace_column_abs_max_sm80(const ColumnAbsMax& op, const Card& card);
int column_abs_max_sm80(const ColumnAbsMax& op, const CudaCall& call);
int smooth_scales_sm80(const SmoothScales& op, const CudaCall& call);

}  // namespace pennyweight::cuda
