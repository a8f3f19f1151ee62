// SPDX-License-Identifier: Apache-2.0
// quantize_avx512vnni.cpp: quantize_kernels.h in AVX-512 (one register per sixteen lanes).
#include "quantize_kernels.h"

#include "kernels_int8.h"

namespace pennyweight::cpu::avx512vnni {

PW_QUANTIZE_ENTRIES

}  // namespace pennyweight::cpu::avx512vnni
