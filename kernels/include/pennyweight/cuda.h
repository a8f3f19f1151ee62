// SPDX-License-Identifier: Apache-2.0
// cuda.h: what of CUDA was built in, and what of it this machine has. Nothing here runs before it is called.
#pragma once
#include "pennyweight/status.h"

namespace pennyweight {

struct CudaState {
  bool built = false;
  int runtime_version = 0;        // of the linked runtime, 1000 * major + 10 * minor; 0: not built
  char architectures[256] = {0};  // as given to CMake, by commas: "80-real,89" (real: machine code; else PTX too)
  int driver_version = 0;         // as runtime_version; 0: no driver
  int device_count = 0;           // cards that the driver shows
  char reason[256] = {0};         // why no card can be used; empty when one can
};

// Asks the driver, without making a context.
PW_API CudaState cuda_state();

}  // namespace pennyweight
