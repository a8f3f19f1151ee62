// SPDX-License-Identifier: Apache-2.0
// weight_scales_avx2.cpp: scales of a weight (weight_scales.h), vectors of 8.
#include "weight_scales_kernels.h"

namespace pennyweight::cpu {

void weight_scales_avx2(const WeightScales& op, const Executor& executor) {
  find_weight_scales(op, executor, {load_values, error});
}

}  // namespace pennyweight::cpu
