// SPDX-License-Identifier: Apache-2.0
// weight_scales.h: scales of a weight: what the driver (weight_scales.cpp) asks of an instruction set
// (weight_scales_kernels.h).
#pragma once
#include "pennyweight/calibrate.h"

namespace pennyweight::cpu {

struct ScaleKernels {
  // `count` elements of w from `first` on as float32, zeros up to a multiple of 16; returns the largest |w|, NaN aside.
  float (*load)(const void* w, DType dtype, int64_t first, int64_t count, float* values);
  // sum |code - w / scale|^norm, the code as it is decoded, over `count` (a multiple of 16) values: the error in units
  // of the scale.
  float (*error)(const float* values, int64_t count, float scale, int64_t format, float norm);
};

void find_weight_scales(const WeightScales& op, const Executor& executor, const ScaleKernels& kernels);
void weight_scales_avx2(const WeightScales& op, const Executor& executor);
void weight_scales_avx512vnni(const WeightScales& op, const Executor& executor);

void quantize_weight_avx2(const QuantizeWeight& op, const Executor& executor);
void column_range_avx2(const ColumnRange& op, const Executor& executor);
void column_abs_max_avx2(const ColumnAbsMax& op, const Executor& executor);

}  // namespace pennyweight::cpu
