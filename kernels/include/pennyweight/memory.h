// SPDX-License-Identifier: Apache-2.0
// memory.h: advice to the system about large buffers.
#pragma once
#include <cstdint>

#include "pennyweight/status.h"

namespace pennyweight {

// Asks for 2 MB pages for the aligned inside of a buffer, before it is first written. A weight that is streamed once
// per token waits on page walks otherwise. Does nothing where the system offers none.
PW_API void prefer_huge_pages(void* data, int64_t bytes);

}  // namespace pennyweight
