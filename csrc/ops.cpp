// SPDX-License-Identifier: Apache-2.0
// ops.cpp: the torch operators through the stable ABI.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pennyweight, m) { (void)m; }
