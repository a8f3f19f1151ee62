// SPDX-License-Identifier: Apache-2.0
// device.h: what the machine at hand can do, read once.
#pragma once
#include <cstdint>

#include "pennyweight/status.h"

namespace pennyweight {

struct Device {
  bool avx2 = false;                                                     // AVX2, FMA and F16C
  bool avx512 = false;                                                   // AVX-512 F, BW, VL, DQ (and avx2)
  bool avx512vnni = false;                                               // and VNNI
  bool avx512vbmi = false;                                               // and VBMI (byte permutes over registers)
  bool avx512bf16 = false;                                               // and BF16 dot products
  int64_t l1_bytes = 32 << 10, l2_bytes = 1 << 20, l3_bytes = 16 << 20;  // per core, per core, shared
};

PW_API const Device& device();

}  // namespace pennyweight
