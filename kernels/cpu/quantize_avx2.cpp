// SPDX-License-Identifier: Apache-2.0
// quantize_avx2.cpp: quantize_kernels.h in AVX2, FMA and F16C.
#include "quantize_kernels.h"

#include "kernels_int8.h"

namespace pennyweight::cpu::avx2 {

PW_QUANTIZE_ENTRIES

}  // namespace pennyweight::cpu::avx2
