// SPDX-License-Identifier: Apache-2.0
// attention_avx512vnni.cpp: attention_kernels.h in AVX-512 (one register per sixteen lanes).
#include "attention_kernels.h"

#include "attention.h"

namespace pennyweight::cpu::avx512vnni {

PW_ATTENTION_ENTRIES

}  // namespace pennyweight::cpu::avx512vnni
