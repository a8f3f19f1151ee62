// SPDX-License-Identifier: Apache-2.0
// gptq_quantize_avx2.cpp: GPTQ (gptq.h), vectors of 8 floats.
#include "gptq_kernels.h"

namespace pennyweight::cpu {

void gptq_quantize_avx2(const GptqQuantize& op, const Executor& executor) { gptq(op, executor, kGptqKernels); }

}  // namespace pennyweight::cpu
