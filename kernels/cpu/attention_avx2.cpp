// SPDX-License-Identifier: Apache-2.0
// attention_avx2.cpp: attention_kernels.h in AVX2, FMA and F16C.
#include "attention_kernels.h"

#include "attention.h"

namespace pennyweight::cpu::avx2 {

PW_ATTENTION_ENTRIES

}  // namespace pennyweight::cpu::avx2
