// SPDX-License-Identifier: Apache-2.0
// status.h: what a call into the kernel library came to. Plain data, so that it crosses library borders.
#pragma once
#include <cstdint>

#if defined(PW_BUILD_KERNELS)
#define PW_API __attribute__((visibility("default")))
#else
#define PW_API
#endif

namespace pennyweight {

enum class Code : int32_t { ok = 0, shape = 1, unsupported = 2, memory = 3, interrupted = 4, device = 5 };

struct Status {
  Code code = Code::ok;
  char message[2048] = {0};  // empty when ok
};

}  // namespace pennyweight
