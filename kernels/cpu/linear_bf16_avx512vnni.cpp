// SPDX-License-Identifier: Apache-2.0
// linear_bf16_avx512vnni.cpp: linear_bf16.h on the lanes of AVX-512.
#include "linear_bf16.h"

#include "linear_float.h"

namespace pennyweight::cpu {

void linear_bf16_avx512vnni(const LinearBf16& op, const Executor& executor) { run_linear_bf16(op, executor); }

}  // namespace pennyweight::cpu
