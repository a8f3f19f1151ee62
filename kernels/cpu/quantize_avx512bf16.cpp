// SPDX-License-Identifier: Apache-2.0
// quantize_avx512bf16.cpp: quantize_kernels.h in AVX-512 with BF16 (two registers of floats rounded to one) and VBMI
// (tables of bytes).
#include "quantize_kernels.h"

#include "kernels_int8.h"

namespace pennyweight::cpu::avx512bf16 {

PW_QUANTIZE_ENTRIES

}  // namespace pennyweight::cpu::avx512bf16
